/**
 * The check of the fencing token stands in the statement that writes. Any database that counts the changed rows will do.
 */
import { type Lease, LockLost, withLock } from "@dlock/core"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"

/** Writes unless a later holder of the key has written: `reports` has a column `token`, 0 at first. */
export const save = (lease: Lease, name: string, body: string) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const token = lease.fencingToken.toString()
    const rows = yield* sql`
      UPDATE reports SET body = ${body}, token = ${token}::bigint
      WHERE name = ${name} AND token <= ${token}::bigint
      RETURNING name`
    if (rows.length > 0) return
    const { fencingToken, key, owner } = lease
    return yield* new LockLost({ key, owner, fencingToken, reason: "taken" })
  })

export const program = withLock("reports/today", (lease) => save(lease, "today", "all is well"))
