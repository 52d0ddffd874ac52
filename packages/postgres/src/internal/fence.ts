/**
 * Fencing inside a transaction of the application.
 *
 * KEY SHARE conflicts with the lock under which a key is granted, and not with a renewal. Once a transaction has it, no
 * other owner is granted the key until that transaction ends; once another owner was, the transaction is refused.
 */
import type { Lease, LockBackendError } from "@dlock/core"
import { LockLost } from "@dlock/core"
import { Errors } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import { backendName } from "./errors.ts"
import { identifier } from "./schema.ts"

/** Where the rows of the leases are. */
export interface Place {
  readonly schema: string
  readonly keyPrefix: string
}

const refused = (detail: string): LockBackendError => Errors.make(backendName).options("fence", { detail })

/** Locks the row of the lease until the transaction ends; gives no row once the lease is lost. */
export const statement = (
  sql: SqlClient.SqlClient,
  { keyPrefix, schema }: Place,
  { backend, fencingToken, key, owner }: Lease
): Effect.Effect<Statement.Statement<{ readonly held: number }>, LockBackendError> =>
  backend === backendName
    ? Effect.succeed(
      sql<{ readonly held: number }>`select 1 as held from ${sql.literal(identifier(schema))}.lease
where key = ${keyPrefix + key} and owner = ${owner} and ${fencingToken} between first_token and token for key share`
    )
    : Effect.fail(refused(`the lease of "${key}" is one of the backend ${backend}`))

/** The same as an effect, which fails once the lease is lost. */
export const fence = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  place: Place,
  lease: Lease
): Effect.fn.Return<void, LockLost | LockBackendError | SqlError> {
  const held = yield* statement(sql, place, lease)
  if (Option.isNone(yield* Effect.serviceOption(sql.transactionService))) {
    return yield* Effect.fail(refused("there is no transaction; run it inside sql.withTransaction"))
  }
  const { fencingToken, key, owner } = lease
  const lost = new LockLost({ key, owner, fencingToken, reason: "taken" })
  const rows = yield* Effect.catchIf(
    held.withoutTransform,
    // At REPEATABLE READ and SERIALIZABLE a row that was granted anew cannot be locked at all.
    (error) => error.reason._tag === "SerializationError",
    () => Effect.fail(lost)
  )
  if (rows.length === 0) return yield* Effect.fail(lost)
})
