/**
 * A process that writes under a lock in a transaction, and takes its time between the write and the fence: it prints
 * `written`, waits for a line on its standard input, fences, commits, and prints what came of it.
 */
import { acquire } from "@dlock/core"
import { PostgresLock } from "@dlock/postgres"
import { PgClient } from "@effect/sql-pg"
import { Console, Effect, Layer, Logger, Redacted } from "effect"
import { once } from "node:events"
import * as process from "node:process"

const [url = "", key = "", isolation = "READ COMMITTED", order = "last"] = process.argv.slice(2)

const program = Effect.gen(function*() {
  const sql = yield* PgClient.PgClient
  const lease = yield* acquire(key, { ttl: "1 second" })
  const outcome = yield* sql.withTransaction(Effect.gen(function*() {
    yield* sql.unsafe(`set transaction isolation level ${isolation}`)
    if (order === "first") yield* PostgresLock.fence(lease)
    yield* sql`insert into ledger (writer) values ('frozen')`
    yield* Console.log("written")
    yield* Effect.promise(() => once(process.stdin, "data"))
    if (order === "last") yield* PostgresLock.fence(lease)
  })).pipe(Effect.as("committed"), Effect.catch((error) => Effect.succeed(error._tag)))
  yield* Console.log(outcome)
})

const client = PgClient.layer({ url: Redacted.make(url) })

await Effect.runPromise(
  Effect.scoped(program).pipe(
    Effect.provide(PostgresLock.layer({ url })),
    Effect.provide(Layer.orDie(client)),
    Effect.provide(Logger.layer([])),
    Effect.orDie
  )
)
process.exit(0)
