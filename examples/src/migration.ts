/**
 * A migration of a database that every instance of a service starts, and one of them runs. The others wait for it and
 * find it done.
 *
 *     DLOCK_MYSQL_URL=mysql://app:secret@localhost:3306/shop node examples/src/migration.ts
 */
import { withLock } from "@dlock/core"
import { MysqlLock } from "@dlock/mysql"
import { NodeRuntime } from "@effect/platform-node"
import { Config, Console, Effect, Redacted, Schema } from "effect"
import { createConnection, type RowDataPacket } from "mysql2/promise"

class MigrationError extends Schema.TaggedError<MigrationError>()("MigrationError", { cause: Schema.Defect() }) {}

/** In the order in which they are run. Each is idempotent, because MySQL cannot roll back a change of the schema. */
const migrations = [
  ["create-orders", "CREATE TABLE IF NOT EXISTS orders (id BIGINT PRIMARY KEY)"],
  ["create-charges", "CREATE TABLE IF NOT EXISTS charges (order_id BIGINT PRIMARY KEY)"]
] as const

const connect = Effect.acquireRelease(
  Effect.flatMap(Config.Redacted("DLOCK_MYSQL_URL"), (url) =>
    Effect.tryPromise({
      try: () => createConnection(Redacted.value(url)),
      catch: (cause) => new MigrationError({ cause })
    })),
  (connection) => Effect.promise(() => connection.end())
)

const migrate = Effect.gen(function*() {
  const connection = yield* connect
  const query = (statement: string, values: Array<string> = []) =>
    Effect.tryPromise({
      try: () => connection.query<Array<RowDataPacket>>(statement, values),
      catch: (cause) => new MigrationError({ cause })
    })
  yield* query("CREATE TABLE IF NOT EXISTS migrations (name VARCHAR(100) PRIMARY KEY)")
  const [rows] = yield* query("SELECT name FROM migrations")
  const done = new Set(rows.map((row) => row["name"]))
  for (const [name, statement] of migrations) {
    if (done.has(name)) continue
    yield* query(statement)
    yield* query("INSERT INTO migrations (name) VALUES (?)", [name])
    yield* Console.log(`ran ${name}`)
  }
})

const program = Effect.gen(function*() {
  // Without a limit on the wait: a migration may take long, and the service is of no use before it is done.
  yield* withLock("migrations", migrate)
  yield* Console.log("the database is ready")
})

NodeRuntime.runMain(Effect.provide(program, MysqlLock.layerConfig()))
