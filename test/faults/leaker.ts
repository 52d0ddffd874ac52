/**
 * A process that takes and releases locks, many times, and counts what it has: fibers, timers, sockets, memory.
 */
import { Lock, withLock } from "@dlock/core"
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Logger, Queue, Schedule } from "effect"
import * as Diagnostics from "node:diagnostics_channel"
import * as Net from "node:net"
import * as V8 from "node:v8"
import { layer } from "./connect.ts"
import type { Command, Glance, Inventory, LeakSpec } from "./Leaks.ts"
import { variable } from "./Spec.ts"

const spec: LeakSpec = JSON.parse(process.env[variable] ?? "{}")

/** Fibers that contend for each key. */
const contenders = 4
const keys = 16

/** Alone with its key or in line with others. An error is not what is looked for here. */
const pair = (number: number) => {
  const key = number < keys ? `alone/${number}` : "together"
  const held = withLock(key, Effect.void, { ttl: spec.ttl, timeout: "20 seconds" })
  return Effect.ignore(Effect.onError(held, () => Effect.sleep(20)))
}

const inLanes = (lane: (number: number) => Effect.Effect<unknown, never, Lock>) =>
  Effect.forEach(Array.from({ length: keys + contenders }, (_, i) => i), lane, {
    concurrency: "unbounded",
    discard: true
  })

/** One after the other in each lane. */
const run = (pairs: number) =>
  inLanes((number) => Effect.repeat(pair(number), { times: Math.ceil(pairs / (keys + contenders)) - 1 }))

/** A fault meets requests under way in some lanes all the same, and the processor is not kept busy between two faults. */
const breath = 5

const suffering = inLanes((number) => Effect.forever(Effect.andThen(pair(number), Effect.sleep(breath))))

let warnings = 0
// That counting is an experiment of Node's is no concern here.
process.on("warning", ({ name }) => {
  if (name !== "ExperimentalWarning") warnings++
})

/**
 * Every socket to a server that was ever made. Those that are still there after a collection are as many as a walk through
 * the heap finds, and the walk takes half a second.
 */
const sockets = new Set<WeakRef<Net.Socket>>()
Diagnostics.subscribe("net.client.socket", (message) => {
  if (typeof message !== "object" || message === null || !("socket" in message)) return
  const { socket } = message
  if (socket instanceof Net.Socket) sockets.add(new WeakRef(socket))
})

const socketsLeft = (): number => {
  for (const socket of sockets) if (socket.deref() === undefined) sockets.delete(socket)
  return sockets.size
}

const glance = (): Glance => {
  const active = process.getActiveResourcesInfo()
  const timers = active.filter((name) => name === "Timeout" || name === "Immediate").length
  return {
    timers,
    handles: active.length - timers,
    listeners: process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0)
  }
}

const inventory: Effect.Effect<Inventory> = Effect.withFiber(({ constructor }) =>
  Effect.sync(() => {
    // What is kept until a finalizer ran goes only with the second.
    for (let i = 0; i < 2; i++) globalThis.gc?.()
    return {
      ...glance(),
      // Walks through the whole heap.
      fibers: Number(V8.queryObjects(constructor, { format: "count" })),
      sockets: socketsLeft(),
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
    } else if (command.do === "glance") {
      yield* answer(glance())
    } else if (command.do === "measure") {
      yield* answer(yield* inventory)
    } else if (command.do === "suffer") {
      yield* Effect.raceFirst(suffering, Queue.take(commands))
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
