/**
 * `demo`: sells the tickets of a concert twice, without a lock and with one.
 */
import { MemoryLock } from "@dlock/core"
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Duration, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { isExact, makeCounter, type Result, table } from "./report.ts"
import { inMemory, locked, type Sale, sellOut, withoutLock } from "./ticketSale.ts"

const tickets = 200
const clerks = 16

const run = Effect.fnUntraced(function*<E, R>(
  title: string,
  sale: (onSale: (sale: Sale) => Effect.Effect<void>) => Effect.Effect<void, E, R>
) {
  const counter = yield* makeCounter(title, tickets)
  const [duration] = yield* Effect.timed(sale(counter.onSale))
  yield* counter.done
  return { tickets, sales: yield* counter.sales, millis: Duration.toMillis(duration) } satisfies Result
})

const inOneProcess = Effect.gen(function*() {
  yield* Console.log(
    `${clerks} clerks sell ${tickets} tickets. Each sale reads how many are left, takes the money, writes one less.\n`
  )
  const open = yield* inMemory(tickets)
  const without = yield* run("without a lock", (onSale) => sellOut(clerks, withoutLock(open), onSale))
  const guarded = yield* inMemory(tickets)
  const result = yield* run("with withLock", (onSale) => sellOut(clerks, locked(guarded), onSale)).pipe(
    Effect.provide(MemoryLock.layer)
  )
  yield* Console.log(`\n${table(without, result)}`)
  return isExact(result)
})

const demo = Command.make(
  "demo",
  {
    backend: Flag.Literals("backend", ["memory"]).pipe(Flag.withDefault("memory"))
  },
  Effect.fnUntraced(function*() {
    const exact = yield* inOneProcess
    if (!exact) return yield* Effect.die("no")
  })
)

Command.run(demo, { version: "0.1.0" }).pipe(
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
