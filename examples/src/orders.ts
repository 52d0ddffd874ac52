/**
 * An HTTP service that charges each order once, however many requests arrive at however many of its processes.
 *
 *     DLOCK_POSTGRES_URL=postgres://app:secret@localhost/shop PORT=3000 node examples/src/orders.ts
 *     curl -X POST localhost:3000/orders/42/charge
 */
import { withLock } from "@dlock/core"
import { PostgresLock } from "@dlock/postgres"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Config, Effect, Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { SqlClient } from "effect/sql"
import { createServer } from "node:http"

/** Stands for the payment provider, which takes the money again each time it is asked. */
const takeTheMoney = Effect.sleep("50 millis")

/** The table, made by one process at a time: PostgreSQL fails when two create it at once, `IF NOT EXISTS` or not. */
const createTable = withLock(
  "orders/schema",
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`CREATE TABLE IF NOT EXISTS charges (order_id text, charged_at timestamptz NOT NULL DEFAULT now())`
  )
)

const charge = (order: string) =>
  withLock(
    `orders/${order}`,
    (lease) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const charges = yield* sql`SELECT 1 FROM charges WHERE order_id = ${order}`
        if (charges.length > 0) return "already charged"
        yield* takeTheMoney
        // A process that was frozen until its lease ended cannot commit: the fence finds that the key has gone to another.
        yield* sql.withTransaction(Effect.gen(function*() {
          yield* sql`INSERT INTO charges (order_id) VALUES (${order})`
          yield* PostgresLock.fence(lease)
        }))
        return "charged"
      }),
    { timeout: "10 seconds" }
  )

const routes = HttpRouter.add(
  "POST",
  "/orders/:id/charge",
  Effect.gen(function*() {
    const { id = "" } = yield* HttpRouter.params
    return HttpServerResponse.text(yield* charge(id))
  }).pipe(
    // Busy is something to try again; everything else is a bug or an outage, and a 500.
    Effect.catchTag("LockUnavailable", () => Effect.succeed(HttpServerResponse.text("busy", { status: 503 })))
  )
)

const url = Config.Redacted("DLOCK_POSTGRES_URL")

const live = Layer.unwrap(Effect.gen(function*() {
  const port = yield* Config.Int("PORT")
  const services = Layer.merge(PostgresLock.layer({ url: yield* url }), PgClient.layer({ url: yield* url }))
  return HttpRouter.serve(routes).pipe(
    Layer.provide(NodeHttpServer.layer(createServer, { port })),
    // What is provided last is built first: nothing listens before the table is there.
    Layer.provide(Layer.effectDiscard(createTable)),
    Layer.provide(services)
  )
}))

// `runMain` interrupts the program on SIGTERM, so that requests end and what is held is released.
NodeRuntime.runMain(Layer.launch(live))
