/**
 * A process that counts under a lock, in fenced transactions: it reads a counter, takes its time, and
 * writes what it read and one more. Nothing else protects the counter.
 */
import { withLock } from "@dlock/core"
import { PostgresLock } from "@dlock/postgres"
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Logger, Random, Redacted } from "effect"
import * as process from "node:process"

const [url = "", key = ""] = process.argv.slice(2)

const once = withLock(key, (lease) =>
  Effect.gen(function*() {
    const sql = yield* PgClient.PgClient
    yield* sql.withTransaction(Effect.gen(function*() {
      const [row] = yield* sql<{ readonly n: number }>`select n from counter`
      yield* Effect.sleep(yield* Random.nextIntBetween(1, 60))
      yield* sql`update counter set n = ${(row?.n ?? 0) + 1}`
      yield* sql`insert into counted (n, token) values (${(row?.n ?? 0) + 1}, ${lease.fencingToken})`
      yield* PostgresLock.fence(lease)
    }))
  }), { ttl: "1 second" })

const lost = Effect.gen(function*() {
  const sql = yield* PgClient.PgClient
  yield* sql`insert into refused default values`
})

const program = Effect.forever(
  Effect.catch(Effect.scoped(once), (error) => error._tag === "LockLost" ? lost : Effect.sleep("50 millis"))
)

await Effect.runPromise(program.pipe(
  Effect.provide(PostgresLock.layer({ url })),
  Effect.provide(Layer.orDie(PgClient.layer({ url: Redacted.make(url) }))),
  Effect.provide(Logger.layer([])),
  Effect.orDie
))
