/**
 * A process that takes and releases locks, many times, and counts what it has: fibers, timers, sockets, memory.
 */
import { Lock, withLock } from "@dlock/core"
import { NodeRuntime } from "@effect/platform-node"
import { Deferred, Effect, Logger, Queue, Schedule } from "effect"
import { Socket } from "node:net"
import * as V8 from "node:v8"
import { layer } from "./connect.ts"
import type { Command, Inventory, LeakSpec } from "./Leaks.ts"
import { variable } from "./Spec.ts"

const spec: LeakSpec = JSON.parse(process.env[variable] ?? "{}")

/** Fibers that contend for each key. */
const contenders = 4
const keys = 16

/** One after the other, each alone with its key or in line with others. An error is not what is looked for here. */
const lane = (pairs: number, number: number) => {
  const key = number < keys ? `alone/${number}` : "together"
  const pair = withLock(key, Effect.void, { ttl: spec.ttl, timeout: "20 seconds" })
  return Effect.repeat(Effect.ignore(Effect.onError(pair, () => Effect.sleep(20))), { times: pairs })
}

const run = (pairs: number) =>
  Effect.forEach(
    Array.from({ length: keys + contenders }, (_, i) => i),
    (number) => lane(Math.ceil(pairs / (keys + contenders)) - 1, number),
    { concurrency: "unbounded", discard: true }
  )

let warnings = 0
// That counting is an experiment of Node's is no concern here.
process.on("warning", ({ name }) => {
  if (name !== "ExperimentalWarning") warnings++
})

/** How many there are of a class. */
const count = (constructor: Function): number => Number(V8.queryObjects(constructor, { format: "count" }))

const inventory: Effect.Effect<Inventory> = Effect.withFiber((fiber) =>
  Effect.sync(() => {
    for (let i = 0; i < 4; i++) globalThis.gc?.()
    const active = process.getActiveResourcesInfo()
    const timers = active.filter((name) => name === "Timeout" || name === "Immediate").length
    const constructor: unknown = fiber.constructor
    return {
      fibers: typeof constructor === "function" ? count(constructor) : 0,
      timers,
      handles: active.length - timers,
      sockets: count(Socket),
      listeners: process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0),
      warnings,
      heap: process.memoryUsage().heapUsed
    }
  })
)

const answer = (value: unknown) => Effect.sync(() => process.send?.(value))

const program = Effect.gen(function*() {
  const commands = yield* Queue.unbounded<Command>()
  yield* Effect.sync(() => {
    process.on("message", (command: Command) => Queue.offerUnsafe(commands, command))
    process.on("disconnect", () => process.exit())
  })
  yield* Lock
  yield* answer("ready")
  while (true) {
    const command = yield* Queue.take(commands)
    if (command.do === "pairs") {
      yield* run(command.pairs)
      yield* answer("done")
    } else if (command.do === "measure") {
      yield* answer(yield* inventory)
    } else if (command.do === "suffer") {
      const over = yield* Deferred.make<void>()
      const suffering = Effect.forever(run(200))
      const watch = Effect.flatMap(Queue.take(commands), () => Deferred.succeed(over, undefined))
      yield* Effect.raceFirst(suffering, Effect.andThen(watch, Deferred.await(over)))
      yield* answer("done")
    }
  }
}).pipe(
  Effect.provide(layer(spec.connection)),
  // A busy machine may not let it connect in time.
  Effect.retry(Schedule.spaced("200 millis")),
  Effect.provide(Logger.layer([]))
)

NodeRuntime.runMain(program)
