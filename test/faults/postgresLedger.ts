/**
 * Writes of an application in a database, each in a transaction that is fenced by its lease. The application has
 * connections of its own, straight to the server: it may write also where its lock has lost the way.
 */
import { PostgresLock } from "@dlock/postgres"
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import type { Written } from "./History.ts"
import { type Entered, Ledger } from "./ledger.ts"

/** Creates the table. */
export const create = (url: string): Effect.Effect<void, SqlError> =>
  Effect.gen(function*() {
    const sql = yield* PgClient.PgClient
    yield* sql`create table ledger (
      id bigserial, key text not null, owner text not null, token bigint not null, seen bigint not null
    )`
  }).pipe(Effect.provide(PgClient.layer({ url: Redacted.make(url) })))

/** Everything that was written. */
export const read = (url: string): Effect.Effect<ReadonlyArray<Written>> =>
  Effect.gen(function*() {
    const sql = yield* PgClient.PgClient
    return yield* sql<Written>`select id, key, owner, token, seen from ledger order by token`
  }).pipe(Effect.provide(PgClient.layer({ url: Redacted.make(url) })), Effect.orDie)

/**
 * Each write says which one before it its transaction could see. Nothing but the lock keeps two writes of a key apart.
 */
export const layer = (url: string) =>
  Layer.effect(
    Ledger,
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      const fencing = yield* Effect.context<PostgresLock.Fencing>()
      const enter = Effect.fnUntraced(function*({ beforeFence, lease, section }: Entered) {
        const { fencingToken, key, owner } = lease
        const [row] = yield* sql<{ readonly seen: bigint }>`
          select coalesce(max(id), 0) as seen from ledger where key = ${key}`
        yield* section
        yield* sql.withTransaction(Effect.gen(function*() {
          yield* sql`insert into ledger (key, owner, token, seen)
            values (${key}, ${owner}, ${fencingToken}, ${row?.seen ?? 0n})`
          yield* beforeFence
          yield* PostgresLock.fence(lease)
        }))
      })
      return {
        isFenced: true,
        enter: (entered: Entered) =>
          Effect.provide(Effect.provideService(enter(entered), SqlClient.SqlClient, sql), fencing)
      }
    })
  ).pipe(Layer.provide(PgClient.layer({ url: Redacted.make(url), maxConnections: 4 })))
