/**
 * What core itself costs: `withLock` over the memory backend, beside the least that a program of Effect does to have
 * something released.
 */
import { Lock, MemoryLock } from "@dlock/core"
import { Effect, Exit, Fiber, Scope } from "effect"
import { median, shuffled } from "./stats.ts"
import { table } from "./table.ts"

export interface Overhead {
  readonly name: string
  readonly micros: number
}

export interface Core {
  readonly times: ReadonlyArray<Overhead>
  /** Bytes, each beside nothing else. */
  readonly heapPerSection: number
  readonly heapPerFiber: number
  readonly heapPerLease: number
}

const perBlock = 500
const leases = 10_000

const awaiting = Effect.promise(() => Promise.resolve())

const bare = (program: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.scoped(Effect.andThen(Effect.acquireRelease(Effect.void, () => Effect.void), program))

const time = (program: Effect.Effect<unknown, unknown>) =>
  Effect.gen(function*() {
    const started = performance.now()
    for (let i = 0; i < perBlock; i++) yield* program
    return (performance.now() - started) * 1000 / perBlock
  })

const used = Effect.sync(() => {
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
})

/** What each of many fibers keeps. */
const heapOfFiber = (program: (i: number) => Effect.Effect<unknown, unknown>) =>
  Effect.gen(function*() {
    const before = yield* used
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    for (let i = 0; i < leases; i++) fibers.push(yield* Effect.forkChild(program(i), { startImmediately: true }))
    yield* Effect.sleep(100)
    const after = yield* used
    yield* Fiber.interruptAll(fibers)
    return (after - before) / leases
  })

const heapOfLease = Effect.gen(function*() {
  const lock = yield* Lock
  const scope = yield* Scope.make()
  const before = yield* used
  yield* Effect.gen(function*() {
    for (let i = 0; i < leases; i++) yield* lock.acquire(`a${i}`)
  }).pipe(Effect.provideService(Scope.Scope, scope))
  const after = yield* used
  yield* Scope.close(scope, Exit.void)
  return (after - before) / leases
})

const measured = Effect.gen(function*() {
  const lock = yield* Lock
  const programs = {
    "scoped acquireRelease of nothing": bare(Effect.void),
    "withLock of nothing": lock.withLock("k", Effect.void),
    "scoped acquireRelease of an await": bare(awaiting),
    "withLock of an await": lock.withLock("k", awaiting)
  }
  const times: Record<string, Array<number>> = {}
  for (let block = -20; block < 40; block++) {
    for (const [name, program] of shuffled(Object.entries(programs))) {
      const micros = yield* time(program)
      if (block >= 0) (times[name] ??= []).push(micros)
    }
  }
  return {
    times: Object.keys(programs).map((name) => ({ name, micros: median(times[name] ?? []) })),
    heapPerFiber: yield* heapOfFiber(() => bare(Effect.never)),
    heapPerSection: yield* heapOfFiber((i) => lock.withLock(`s${i}`, Effect.never)),
    heapPerLease: yield* heapOfLease
  }
})

export const measure: Effect.Effect<Core, unknown> = Effect.provide(measured, MemoryLock.layer)

export const report = (core: Partial<Core>): string =>
  [
    table(["core, over memory", "µs"], (core.times ?? []).map(({ micros, name }) => [name, micros])),
    table(["core, over memory", "heap B"], [
      ["a fiber in a scope", core.heapPerFiber],
      ["a section of withLock", core.heapPerSection],
      ["a lease of acquire", core.heapPerLease]
    ])
  ].join("\n\n")
