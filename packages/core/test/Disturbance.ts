/**
 * Runs a small world of lock users again and again, and disturbs it at its first operation, at its second, and so on,
 * until it ends before it is disturbed. Whatever happens, nothing may be left.
 */
import type { Lock } from "@dlock/core"
import { assert } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, identity, Metric, Scheduler, Scope, Tracer } from "effect"
import { TestClock } from "effect/testing"
import { assertClean, build, leftovers, makeTracer, settle } from "./fixture.ts"
import * as ScriptedBackend from "./ScriptedBackend.ts"

export interface World {
  readonly lock: Lock["Service"]
  /** A second process over the same server. */
  readonly stranger: Lock["Service"]
  readonly backend: ScriptedBackend.ScriptedBackend
  /** A section's work: no other may be in one. */
  readonly work: Effect.Effect<void>
}

/** All fibers of the world, in the order in which they start; the one at `caller` is disturbed. */
export interface Cast {
  readonly caller: number
  /** Whether a second process takes part. */
  readonly strangers?: boolean
  /** Whether somebody reads the spans: then each of them ends. */
  readonly traced?: boolean
  /** What the network does. */
  readonly script?: (backend: ScriptedBackend.ScriptedBackend) => void
  /** The ttl of its leases, where it is short. */
  readonly ttl?: number
  readonly fibers: (world: World) => ReadonlyArray<Effect.Effect<unknown, unknown>>
}

/** What happens at an operation; `true`: the fiber must yield there. */
export type Disturbance = (
  caller: Fiber.Fiber<unknown, unknown>,
  world: World,
  close: () => void,
  elapse: (millis: number) => void
) => boolean

/** Longer than a request and its answer take over the slow network. */
export const timeout = 3

export const disturbances = {
  "an interruption": (caller) => {
    caller.interruptUnsafe()
    return false
  },
  "an interruption during a yield": (caller) => {
    queueMicrotask(() => caller.interruptUnsafe())
    return true
  },
  "a yield": () => true,
  "a loss": (_, { backend }) => {
    backend.rob("k")
    return false
  },
  "the end of the layer": (_, __, close) => {
    queueMicrotask(close)
    return true
  },
  "a timeout": (_, __, ___, elapse) => {
    queueMicrotask(() => elapse(timeout))
    return true
  }
} satisfies Record<string, Disturbance>

/** The fibers that were started and have not ended. */
const makeCensus = () => {
  let active = 0
  const service: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => {
      active++
    },
    recordFiberEnd: () => {
      active--
    }
  }
  return { service, active: () => active }
}

const isExpected = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isSuccess(exit) || (!Cause.hasDies(exit.cause) && exit.cause.reasons.length > 0)

/** Runs the world once, disturbed at the operations that `isDisturbed` says; answers how many operations there were. */
export const run = Effect.fnUntraced(function*(
  cast: Cast,
  disturb: Disturbance,
  isDisturbed: (operation: number) => boolean,
  slow: boolean,
  name: string
) {
  const backend = yield* ScriptedBackend.make()
  if (slow) {
    for (const verb of ["acquire", "tryAcquire", "renew", "release"] as const) {
      backend.always(verb, { before: 1, after: 1 })
    }
  }
  cast.script?.(backend)
  const census = makeCensus()
  const parent = yield* Scheduler.Scheduler
  let operations = 0
  let caller: Fiber.Fiber<unknown, unknown> | undefined
  let inside = 0
  const scheduler: Scheduler.Scheduler = {
    executionMode: parent.executionMode,
    makeDispatcher: () => parent.makeDispatcher(),
    shouldYield: (fiber) => {
      if (caller === undefined || !isDisturbed(++operations)) return parent.shouldYield(fiber)
      return disturb(caller, world, close, (millis) => Effect.runForkWith(test)(TestClock.adjust(millis)))
    }
  }
  const { spans, tracer } = makeTracer()
  const context = Context.make(Scheduler.Scheduler, scheduler).pipe(
    Context.add(Metric.FiberRuntimeMetrics, census.service),
    cast.traced === true ? Context.add(Tracer.Tracer, tracer) : identity
  )
  // A holder that loses the key to another is told a moment later.
  const losing = disturb === disturbances["a loss"] || disturb === disturbances["the end of the layer"]
  let closing: Fiber.Fiber<void> | undefined
  const test = yield* Effect.context<never>()
  const scope = yield* Scope.make()
  const close = () => {
    closing ??= Effect.runForkWith(test)(Scope.close(scope, Exit.void))
  }
  const lock = yield* Effect.provideContext(build(backend, scope), context)
  const elsewhere = yield* Scope.make()
  const stranger = cast.strangers === true ? yield* build(backend, elsewhere) : lock
  const world: World = {
    lock,
    stranger,
    backend,
    work: Effect.acquireUseRelease(
      Effect.sync(() => assert.isTrue(++inside === 1 || losing, `${name}: two at once`)),
      () => Effect.yieldNow,
      () => Effect.sync(() => inside--)
    )
  }
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  const effects = cast.fibers(world)
  for (const [i, effect] of effects.entries()) {
    // The caller is known before its first operation.
    const known = Effect.withFiber((fiber) => {
      if (i === cast.caller) caller = fiber
      return effect
    })
    fibers.push(Effect.runForkWith(Context.merge(test, context))(known))
  }
  for (let i = 0; i < 50 && !fibers.every((fiber) => fiber.pollUnsafe() !== undefined); i++) {
    yield* settle
    // The clock does not wait for a fiber that yields: a step must be shorter than the ttl.
    if (cast.ttl !== undefined) yield* Effect.repeat(TestClock.adjust(cast.ttl / 6), { times: 40 })
    else if (slow || i > 2) yield* TestClock.adjust(slow ? 10 : 1000)
  }
  for (const [i, fiber] of fibers.entries()) {
    const exit = fiber.pollUnsafe() ?? assert.fail(`${name}: caller ${i} waits for ever; ${leftovers(backend)}`)
    assert.isTrue(isExpected(exit), `${name}: caller ${i} ended with ${String(exit)}`)
    if (i !== cast.caller && !losing) {
      assert.isTrue(Exit.isSuccess(exit), `${name}: caller ${i} was not disturbed, but ended with ${String(exit)}`)
    }
  }
  if (closing !== undefined) {
    yield* TestClock.adjust(1000)
    yield* Fiber.await(closing)
  }
  // A caller that is answered may still be releasing in the background.
  for (let i = 0; i < 50 && (i === 0 || leftovers(backend).length > 0); i++) {
    yield* settle
    if (slow && i > 0) yield* TestClock.adjust(1)
  }
  assertClean(backend, name)
  // The watchdog sleeps for another second at most, then it waits without a timer.
  for (let i = 0; i < 50 && census.active() > 1; i++) yield* Effect.andThen(TestClock.adjust(1000), settle)
  assert.strictEqual(census.active(), closing === undefined ? 1 : 0, `${name}: only the watchdog is left`)
  yield* Scope.close(scope, Exit.void)
  yield* Scope.close(elsewhere, Exit.void)
  assert.strictEqual(census.active(), 0, `${name}: no fiber is left`)
  const open = spans.filter(({ status }) => status._tag !== "Ended").map((span) => span.name)
  assert.deepStrictEqual(open, [], `${name}: every span has ended`)
  return operations
})

/** Disturbs the world at every operation, one run for each. */
export const atEveryOperation = Effect.fnUntraced(function*(cast: Cast, disturb: Disturbance, slow: boolean) {
  let runs = 0
  for (let at = 1;; at++) {
    const operations = yield* run(cast, disturb, (operation) => operation === at, slow, `at operation ${at}`)
    runs++
    if (operations < at) return runs
  }
})
