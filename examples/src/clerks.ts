/**
 * A process of clerks: sells from the file that it is given, and writes each sale as a line of JSON. The demo starts
 * several of these.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Config, Console, Effect } from "effect"
import { layer, serverNames } from "./backends.ts"
import { inFile, locked, type Sale, sellOut, withoutLock } from "./ticketSale.ts"

const write = (sale: Sale) => Console.log(JSON.stringify({ ...sale, fencingToken: String(sale.fencingToken) }))

const program = Effect.gen(function*() {
  const clerks = yield* Config.Int("CLERKS")
  const tickets = yield* inFile(yield* Config.String("TICKETS"))
  const backend = yield* Config.option(Config.Literals(serverNames, "BACKEND"))
  return yield* backend._tag === "None"
    ? sellOut(clerks, withoutLock(tickets), write)
    : Effect.provide(sellOut(clerks, locked(tickets), write), layer(backend.value))
})

program.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
