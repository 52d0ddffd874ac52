/**
 * A worker: a process that takes locks as any program does, writes down what it does, and now and then blocks, stops or
 * kills itself as it is told.
 */
import { type Lease, Lock, type LockError } from "@dlock/core"
import { NodeRuntime } from "@effect/platform-node"
import { Cause, Effect, Exit, Layer, Logger, Option, Schedule } from "effect"
import * as Fs from "node:fs"
import { layer } from "./connect.ts"
import type { Entry, Result } from "./History.ts"
import { now, watchStalls } from "./Monotonic.ts"
import * as Random from "./Random.ts"
import { type Ask, type Moment, type Order, type Spec, variable } from "./Spec.ts"

const spec: Spec = JSON.parse(process.env[variable] ?? "{}")
const random = Random.make(spec.seed)

// One write of one line: what was written before a kill is there.
const log = Fs.openSync(spec.log, "a")
const write = (entry: Entry): void => void Fs.writeSync(log, `${JSON.stringify(entry)}\n`)

// ---------------------------------------------------------------------------------------------------------------------
// What it is told
// ---------------------------------------------------------------------------------------------------------------------

let ambush: Exclude<Order, { readonly do: "quit" | "answer" }> | undefined
let quitting = false
const answers = new Map<number, (taken: boolean) => void>()
/** Who waits for a key, and since when. */
const waiting = new Map<number, number>()

process.on("message", (order: Order) => {
  if (order.do === "quit") quitting = true
  else if (order.do === "answer") answers.get(order.a)?.(order.taken)
  else ambush = order
})
// The run is over, or has died.
process.on("disconnect", () => process.exit())

/** Does what it was told to do at this moment; answers how much longer it stays under the lock. */
const spring = (at: Moment): number => {
  if (ambush === undefined || ambush.at !== at) return 0
  const order = ambush
  ambush = undefined
  if (now() > order.until) return 0
  if (order.do === "linger") return order.millis
  if (order.do === "block") {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, order.millis)
  } else if (order.do === "stop") {
    write({ e: "stopping", t: now() })
    process.kill(process.pid, "SIGSTOP")
  } else {
    write({ e: "dying", t: now() })
    process.kill(process.pid, "SIGKILL")
  }
  return 0
}

const shortestWait = 4

watchStalls(
  ({ from, to }) => write({ e: "stall", from, t: to }),
  () => {
    if (ambush?.at !== "waiting") return
    const at = now()
    if ([...waiting.values()].some((since) => at - since > shortestWait)) spring("waiting")
  }
)

// ---------------------------------------------------------------------------------------------------------------------
// What is done under the lock
// ---------------------------------------------------------------------------------------------------------------------

const width = 16

/** A number in a file; a write is whole or was not. */
const counters = new Map([...spec.keys, spec.longKey, spec.rareKey].map((key) => {
  const file = Fs.openSync(`${spec.counters}/${encodeURIComponent(key)}`, Fs.constants.O_RDWR | Fs.constants.O_CREAT)
  return [key, {
    read: () => {
      const bytes = Buffer.alloc(width)
      return Number(bytes.toString("latin1", 0, Fs.readSync(file, bytes, 0, width, 0)))
    },
    write: (n: number) => void Fs.writeSync(file, String(n).padStart(width, "0"), 0, "latin1")
  }]
}))

/** The register takes no token smaller than one that it has seen. */
const register = (ask: Ask): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    answers.set(ask.a, (taken) => resume(Effect.succeed(taken)))
    process.send?.(ask)
    return Effect.sync(() => answers.delete(ask.a))
  })

const section = (a: number, key: string, work: number) => (lease: Lease): Effect.Effect<void> =>
  Effect.gen(function*() {
    waiting.delete(a)
    write({ e: "held", t: now(), a, token: String(lease.fencingToken) })
    const counter = counters.get(key)
    const n = counter?.read() ?? 0
    write({ e: "read", t: now(), a, n })
    yield* Effect.sleep(work + spring("holding"))
    write({ e: "wrote", t: now(), a, n: n + 1 })
    counter?.write(n + 1)
    const taken = yield* register({ a, key, token: String(lease.fencingToken) })
    if (!taken) write({ e: "refused", t: now(), a })
  }).pipe(
    Effect.onExit((exit) =>
      Effect.sync(() => write({ e: "left", t: now(), a, how: Exit.isSuccess(exit) ? "done" : "interrupted" }))
    )
  )

// ---------------------------------------------------------------------------------------------------------------------
// Attempts
// ---------------------------------------------------------------------------------------------------------------------

const resultOf = (exit: Exit.Exit<Option.Option<void>, LockError>): { result: Result, detail?: string } => {
  if (Exit.isSuccess(exit)) return { result: Option.isNone(exit.value) ? "interrupted" : "released" }
  if (Cause.hasInterruptsOnly(exit.cause)) return { result: "interrupted" }
  const error = Cause.findErrorOption(exit.cause)
  if (Option.isNone(error)) return { result: "error", detail: Cause.pretty(exit.cause) }
  switch (error.value._tag) {
    case "LockLost":
      return { result: "lost", detail: error.value.reason }
    case "LockUnavailable":
      return { result: "timeout", detail: error.value.reason }
    case "LockBackendError":
      return { result: "error", detail: error.value.message }
    case "InvalidLockRequest":
      return { result: "error", detail: error.value.message }
  }
}

let attempts = 0

const attempt = Effect.fnUntraced(function*(lock: Lock["Service"], layer: number, key: string, work: number) {
  const a = ++attempts
  const timeout = random.chance(0.08) ? random.between(20, 400) : undefined
  const patience = random.chance(0.08) ? random.between(1, 300) : undefined
  const asked = now()
  write({ e: "asked", t: asked, a, key, layer })
  waiting.set(a, asked)
  const held = Effect.asSome(lock.withLock(key, section(a, key, work), { ttl: spec.ttl, timeout }))
  const exit = yield* Effect.exit(
    patience === undefined ? held : Effect.raceFirst(held, Effect.as(Effect.sleep(patience), Option.none<void>()))
  )
  waiting.delete(a)
  const outcome = resultOf(exit)
  write({ e: "ended", t: now(), a, ...outcome })
  // An error is told at once, and would else be asked for again as fast as the machine can.
  if (outcome.result === "error") yield* Effect.sleep(random.between(20, 120))
})

/** One attempt after the other, each with the pause after it. */
const fibers = (lock: Lock["Service"], layer: number): ReadonlyArray<Effect.Effect<void>> => [
  Effect.suspend(() =>
    attempt(lock, layer, spec.longKey, random.between(spec.ttl * 0.2, spec.ttl * 1.4)).pipe(Effect.delay(50))
  ),
  Effect.suspend(() =>
    attempt(lock, layer, spec.rareKey, random.between(1, 10)).pipe(Effect.delay(random.between(20, 400)))
  ),
  ...Array.from(
    { length: spec.fibers },
    () =>
      Effect.suspend(() =>
        attempt(lock, layer, random.pick(spec.keys) ?? "", random.between(1, 50)).pipe(Effect.delay(1))
      )
  )
]

const crew = (number: number) =>
  Effect.gen(function*() {
    const lock = yield* Lock
    if (number === 0) write({ e: "ready", t: now() })
    yield* Effect.forEach(fibers(lock, number), Effect.repeat({ until: () => quitting }), {
      concurrency: "unbounded",
      discard: true
    })
  }).pipe(
    Effect.provide(Layer.fresh(layer(spec.connection))),
    // The server may be away just now.
    Effect.retry(Schedule.spaced("200 millis"))
  )

const program = Effect.forEach(
  Array.from({ length: spec.layers }, (_, i) => i),
  crew,
  { concurrency: "unbounded", discard: true }
).pipe(
  Effect.andThen(Effect.sync(() => {
    write({ e: "bye", t: now() })
    process.exit()
  })),
  Effect.provide(Logger.layer([]))
)

NodeRuntime.runMain(program)
