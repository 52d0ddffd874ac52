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

export interface Disturbance {
  /** What happens at an operation; `true`: the fiber must yield there. */
  readonly happen: (
    caller: Fiber.Fiber<unknown, unknown>,
    world: World,
    close: () => void,
    elapse: (millis: number) => void
  ) => boolean
  /** Whether that would change anything now. Default: always. */
  readonly matters?: (caller: Fiber.Fiber<unknown, unknown>, world: World) => boolean
}

/** Longer than a request and its answer take over the slow network. */
export const timeout = 3

/** The server takes the key from its holder. */
export const loss = (key: string): Disturbance => ({
  matters: (_, { backend }) => backend.isHeld(key),
  happen: (_, { backend }) => {
    backend.rob(key)
    return false
  }
})

export const disturbances = {
  "an interruption": {
    matters: (caller) => caller.pollUnsafe() === undefined,
    happen: (caller) => {
      caller.interruptUnsafe()
      return false
    }
  },
  "an interruption during a yield": {
    happen: (caller) => {
      queueMicrotask(() => caller.interruptUnsafe())
      return true
    }
  },
  "a yield": { happen: () => true },
  "a loss": loss("k"),
  "the end of the layer": {
    happen: (_, __, close) => {
      queueMicrotask(close)
      return true
    }
  },
  "a timeout": {
    happen: (_, __, ___, elapse) => {
      queueMicrotask(() => elapse(timeout))
      return true
    }
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

/** As `assert.isTrue`, for what is asked a hundred thousand times: the words are put together when it fails. */
const check = (holds: boolean, property: () => string): void => {
  if (!holds) assert.fail(property())
}

/** Runs the world once, disturbed at the operations that `isDisturbed` says. */
export const run = Effect.fnUntraced(function*(
  cast: Cast,
  disturbance: Disturbance,
  isDisturbed: (operation: number, matters: () => boolean) => boolean,
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
      const known = caller
      if (known === undefined || !isDisturbed(++operations, () => disturbance.matters?.(known, world) ?? true)) {
        return parent.shouldYield(fiber)
      }
      return disturbance.happen(known, world, close, (millis) => Effect.runForkWith(test)(TestClock.adjust(millis)))
    }
  }
  const { spans, tracer } = makeTracer()
  const context = Context.make(Scheduler.Scheduler, scheduler).pipe(
    Context.add(Metric.FiberRuntimeMetrics, census.service),
    cast.traced === true ? Context.add(Tracer.Tracer, tracer) : identity
  )
  // A holder that loses the key to another is told a moment later.
  const losing = disturbance === disturbances["a loss"] || disturbance === disturbances["the end of the layer"]
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
      Effect.sync(() => check(++inside === 1 || losing, () => `${name}: two at once`)),
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
  const haveEnded = () => fibers.every((fiber) => fiber.pollUnsafe() !== undefined)
  for (let i = 0; i < 50 && !haveEnded(); i++) {
    yield* settle
    // The clock does not wait for a fiber that yields: a step must be shorter than the ttl.
    if (cast.ttl !== undefined) yield* Effect.repeat(TestClock.adjust(cast.ttl / 6), { times: 40, until: haveEnded })
    else if (slow || i > 2) yield* TestClock.adjust(slow ? 10 : 1000)
  }
  for (const [i, fiber] of fibers.entries()) {
    const exit = fiber.pollUnsafe() ?? assert.fail(`${name}: caller ${i} waits for ever; ${leftovers(backend)}`)
    check(isExpected(exit), () => `${name}: caller ${i} ended with ${String(exit)}`)
    check(
      i === cast.caller || losing || Exit.isSuccess(exit),
      () => `${name}: caller ${i} was not disturbed, but ended with ${String(exit)}`
    )
  }
  if (closing !== undefined) {
    yield* TestClock.adjust(1000)
    yield* Fiber.await(closing)
  }
  // A caller that is answered may still be releasing in the background.
  for (let i = 0; i < 50 && (i === 0 || leftovers(backend).length > 0); i++) {
    yield* settle
    if ((slow || cast.ttl !== undefined) && i > 0) yield* TestClock.adjust(1)
  }
  assertClean(backend, name)
  // The watchdog sleeps until its last alarm would have been due, then it waits without a timer.
  for (let i = 0; i < 5 && census.active() > 1; i++) yield* Effect.andThen(TestClock.adjust(10_000), settle)
  const left = closing === undefined ? 1 : 0
  check(census.active() === left, () => `${name}: only the watchdog is left, not ${census.active()} fibers`)
  yield* Scope.close(scope, Exit.void)
  yield* Scope.close(elsewhere, Exit.void)
  check(census.active() === 0, () => `${name}: no fiber is left, not ${census.active()}`)
  const open = spans.filter(({ status }) => status._tag !== "Ended").map((span) => span.name)
  check(open.length === 0, () => `${name}: every span has ended, also ${open.join(", ")}`)
})

/** Disturbs the world at every operation where that changes anything, one run for each; answers how many runs. */
export const atEveryOperation = Effect.fnUntraced(function*(cast: Cast, disturbance: Disturbance, slow: boolean) {
  let runs = 0
  for (let from = 1;;) {
    let at: number | undefined
    yield* run(
      cast,
      disturbance,
      (operation, matters) => {
        if (at !== undefined || operation < from || !matters()) return false
        at = operation
        return true
      },
      slow,
      `from operation ${from} on`
    )
    runs++
    if (at === undefined) return runs
    from = at + 1
  }
})
