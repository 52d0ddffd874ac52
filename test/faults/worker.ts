/**
 * A worker: a process that takes locks as any program does, writes down what it does, and now and then blocks, stops or
 * kills itself as it is told.
 */
import { Leader, type Lease, Lock, LockLost, LockUnavailable, withPermit } from "@dlock/core"
import { NodeRuntime } from "@effect/platform-node"
import { Cause, Deferred, Effect, Exit, Layer, Logger, Option, Schedule } from "effect"
import * as Fs from "node:fs"
import { layer } from "./connect.ts"
import type { Entry, Result, Role } from "./History.ts"
import { Ledger } from "./ledger.ts"
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
/** The run is over: no attempt is begun any more. */
const over = Deferred.makeUnsafe<void>()

/** A pause under the lock, which ends early when the run does: nothing more is broken then. */
const rest = (millis: number): Effect.Effect<void> => Effect.asVoid(Effect.timeoutOption(Deferred.await(over), millis))

const answers = new Map<number, (taken: boolean) => void>()
/** The attempts that wait for a key, and since when. */
const waiting = new Map<number, number>()

process.on("message", (order: Order) => {
  if (order.do === "quit") Deferred.doneUnsafe(over, Effect.void)
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
const counters = new Map([...spec.keys, spec.longKey, spec.rareKey, spec.leaderKey].map((key) => {
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

/** Counts in a file, and writes the register: nothing but the lock protects either. */
const count = Effect.fnUntraced(function*(a: number, { fencingToken, key }: Lease, millis: () => number) {
  const counter = counters.get(key)
  const n = counter?.read() ?? 0
  write({ e: "read", t: now(), a, n })
  yield* rest(millis())
  write({ e: "wrote", t: now(), a, n: n + 1 })
  counter?.write(n + 1)
  const taken = yield* register({ a, key, token: String(fencingToken) })
  if (!taken) write({ e: "refused", t: now(), a })
})

const isPermit = (lease: Lease): lease is Lock.Permit => "permit" in lease

/** What is only for the ledger comes after the end of the belief: there a fence protects. */
const section = (a: number, work: number) => (lease: Lease) =>
  Effect.suspend(() => {
    let hasLeft = false
    const leave = <A, E>(self: Effect.Effect<A, E>) =>
      Effect.onExit(self, (exit) =>
        Effect.sync(() => {
          if (!hasLeft) write({ e: "left", t: now(), a, how: Exit.isSuccess(exit) ? "done" : "interrupted" })
          hasLeft = true
        }))
    waiting.delete(a)
    if (isPermit(lease)) return leave(permitSection(a, work, lease))
    write({ e: "held", t: now(), a, token: String(lease.fencingToken), owner: lease.owner })
    return Effect.flatMap(Ledger, ({ enter, isFenced }) =>
      leave(enter({
        lease,
        section: leave(count(a, lease, () => work + (isFenced && random.chance(0.5) ? 0 : spring("holding")))),
        // Without a pause, if there is none to make: a process that was frozen here goes on before it looks at its clock.
        beforeFence: Effect.suspend(() => {
          const more = spring("holding")
          return more > 0 ? rest(more) : Effect.void
        })
      })))
  })

/** Several use permits at once, so nothing is counted. */
const permitSection = (a: number, work: number, { fencingToken, owner, permit }: Lock.Permit): Effect.Effect<void> =>
  Effect.suspend(() => {
    write({ e: "held", t: now(), a, token: String(fencingToken), owner, permit })
    return rest(work + spring("holding"))
  })

// ---------------------------------------------------------------------------------------------------------------------
// Attempts
// ---------------------------------------------------------------------------------------------------------------------

const resultOf = (exit: Exit.Exit<unknown, unknown>): { result: Result, detail?: string } => {
  if (Exit.isSuccess(exit)) return { result: "released" }
  if (Cause.hasInterruptsOnly(exit.cause)) return { result: "interrupted" }
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  if (error instanceof LockLost) return { result: "lost", detail: error.reason }
  if (error instanceof LockUnavailable) return { result: "timeout", detail: error.reason }
  return { result: "error", detail: error instanceof Error ? error.message : Cause.pretty(exit.cause) }
}

let attempts = 0

const begin = (key: string, layer: number, role?: Role, permits?: number): number => {
  const a = ++attempts
  const asked = now()
  write({ e: "asked", t: asked, a, key, layer, role, permits })
  waiting.set(a, asked)
  return a
}

/** Writes down what came of the attempt. */
const concluded = <A, E, R>(a: number, held: Effect.Effect<A, E, R>) =>
  Effect.onExit(held, (exit) =>
    Effect.sync(() => {
      waiting.delete(a)
      write({ e: "ended", t: now(), a, ...resultOf(exit) })
    }))

/** Now and then not for long. */
const ask = Effect.fnUntraced(function*<E, R>(held: Effect.Effect<void, E, R>) {
  const patience = random.chance(0.08) ? random.between(1, 300) : undefined
  const exit = yield* Effect.exit(patience === undefined ? held : Effect.raceFirst(held, Effect.sleep(patience)))
  // An error is told at once, and would else be asked for again as fast as the machine can.
  if (resultOf(exit).result === "error") yield* Effect.sleep(random.between(20, 120))
})

const timeout = () => random.chance(0.08) ? random.between(20, 400) : undefined

const attempt = (lock: Lock["Service"], layer: number, key: string, work: number) =>
  Effect.suspend(() => {
    const a = begin(key, layer)
    return ask(concluded(a, lock.withLock(key, section(a, work), { ttl: spec.ttl, timeout: timeout() })))
  })

/** Mostly one permit, now and then several or all. */
const usePermits = (lock: Lock["Service"], layer: number, work: number) =>
  Effect.suspend(() => {
    const { limit, permitsKey, ttl } = spec
    const permits = random.chance(0.7) ? 1 : random.between(1, limit)
    const a = begin(permitsKey, layer, "permits", permits)
    const used = withPermit(permitsKey, { limit, permits }, section(a, work), { ttl, timeout: timeout() })
    return ask(concluded(a, Effect.provideService(used, Lock, lock)))
  })

/** An election; each term is an attempt of its own. */
const lead = (lock: Lock["Service"], layer: number, work: number) =>
  Effect.suspend(() => {
    const { leaderKey, ttl } = spec
    let a = 0
    const withLock: typeof lock.withLock = (key, program, options) =>
      Effect.suspend(() => {
        a = begin(key, layer, "leader")
        return concluded(a, lock.withLock(key, program, options))
      })
    const term = (lease: Lease) => section(a, work)(lease)
    return ask(Effect.provideService(Leader.run(leaderKey, term, { ttl }), Lock, { ...lock, withLock }))
  })

/** Half of the sections are short, so that a hold passes from one to the next within a turn. */
const sectionMillis = () => random.chance(0.5) ? random.between(0, 4) : random.between(20, 100)

const permitFibers = 2

/** One attempt after the other, each with the pause after it. */
const fibers = (lock: Lock["Service"], layer: number): ReadonlyArray<Effect.Effect<void>> => [
  Effect.suspend(() =>
    attempt(lock, layer, spec.longKey, random.between(spec.ttl * 0.2, spec.ttl * 1.4)).pipe(Effect.delay(50))
  ),
  Effect.suspend(() =>
    attempt(lock, layer, spec.rareKey, random.between(1, 10)).pipe(Effect.delay(random.between(20, 400)))
  ),
  Effect.suspend(() => lead(lock, layer, random.between(5, spec.ttl * 0.5)).pipe(Effect.delay(random.between(1, 200)))),
  ...Array.from(
    { length: permitFibers },
    () =>
      Effect.suspend(() => usePermits(lock, layer, random.chance(0.1) ? spec.ttl * 0.6 : sectionMillis())).pipe(
        Effect.delay(5)
      )
  ),
  ...Array.from(
    { length: spec.fibers },
    () =>
      Effect.suspend(() => attempt(lock, layer, random.pick(spec.keys) ?? "", sectionMillis()).pipe(Effect.delay(1)))
  )
]

const crew = (number: number) =>
  Effect.gen(function*() {
    const lock = yield* Lock
    if (number === 0) write({ e: "ready", t: now() })
    yield* Effect.forEach(fibers(lock, number), Effect.repeat({ until: () => Deferred.isDoneUnsafe(over) }), {
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
