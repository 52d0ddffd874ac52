/**
 * What the tests of the engine share: a `Lock` over a scripted backend, and the question whether anything is left.
 */
import type { Lock, LockBackend } from "@dlock/core"
import { assert } from "@effect/vitest"
import { Clock, Effect, Exit, type Fiber, Scope, Tracer } from "effect"
import { TestClock } from "effect/testing"
import { type Locks, open, serviceOf } from "../src/internal/lock.ts"
import * as ScriptedBackend from "./ScriptedBackend.ts"

export const seconds = (n: number) => n * 1000

/** Turns of the event loop, without time: whatever can go on, goes on. */
export const settle = Effect.repeat(Effect.yieldNow, { times: 5 })

/** Forks and lets it run until it waits. */
export const start = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.tap(Effect.forkChild(effect, { startImmediately: true }), () => settle)

export const elapse = (millis: number) => Effect.andThen(TestClock.adjust(millis), settle)

/** The exit of a fiber that must have ended by now. */
export const ended = <A, E>(fiber: Fiber.Fiber<A, E>, property: string): Exit.Exit<A, E> =>
  fiber.pollUnsafe() ?? assert.fail(`${property}: it has not ended`)

export const isPending = (fiber: Fiber.Fiber<unknown, unknown>): boolean => fiber.pollUnsafe() === undefined

/** The error that an exit failed with. */
export const errorOf = <A, E>(exit: Exit.Exit<A, E>, property: string): E => {
  if (Exit.isSuccess(exit)) return assert.fail(`${property}: it succeeded`)
  for (const reason of exit.cause.reasons) {
    if (reason._tag === "Fail") return reason.error
  }
  return assert.fail(`${property}: no error in ${String(exit.cause)}`)
}

/** An error with at least these fields. */
export const assertError = (error: unknown, fields: Readonly<Record<string, unknown>>, property?: string): void =>
  assert.deepInclude(Object(error), fields, property)

// The layer is hidden behind the service; whether it has forgotten everything can only be seen inside.
const layers = new WeakMap<LockBackend["Service"], Set<Locks>>()

/** What is left in the memory of the layers over a backend. */
export const leftovers = (backend: LockBackend["Service"]): ReadonlyArray<string> =>
  [...layers.get(backend) ?? []].flatMap(({ layer, lines }) => [
    ...lines.byKey.size === 0 ? [] : [`${lines.byKey.size} local lines`],
    ...layer.obligations.size === 0 ? [] : [`${layer.obligations.size} requests to release`],
    ...layer.watchdog.alarms.length === 0 ? [] : [`${layer.watchdog.alarms.length} alarms`]
  ])

/** Nothing is held, queued, under way or remembered. */
export const assertClean = (backend: ScriptedBackend.ScriptedBackend, property = "nothing is left"): void => {
  // Some tests ask it thousands of times, which an assertion that holds is too slow for.
  if (!backend.isIdle()) assert.fail(`${property}: on the server`)
  const left = leftovers(backend)
  if (left.length > 0) assert.deepStrictEqual(left, [], property)
}

/** The clock of the test, whose two times can jump: wall time when the machine sleeps, both when nothing else can run. */
export const jumpingClock = Effect.map(TestClock.testClockWith(Effect.succeed), (clock) => {
  let slept = 0
  let blocked = 0
  const jumping: TestClock.TestClock = {
    ...clock,
    currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + slept + blocked,
    currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + BigInt(slept + blocked) * 1_000_000n,
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() + BigInt(blocked) * 1_000_000n
  }
  // A layer naps on a clock that moves by itself.
  const { adjust: _, ...live } = jumping
  return {
    clock: jumping,
    live,
    /** The machine sleeps: wall time goes on, monotonic time and timers stand still. */
    sleep: (millis: number) => Effect.sync(() => slept += millis),
    /** The event loop is blocked: time goes on and no timer fires. */
    block: (millis: number) => Effect.sync(() => blocked += millis)
  }
})

export type JumpingClock = Effect.Success<typeof jumpingClock>

/** A tracer that keeps its spans. */
export const makeTracer = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { spans, tracer }
}

export interface Fixture {
  readonly lock: Lock["Service"]
  readonly backend: ScriptedBackend.ScriptedBackend
  /** Ends the layer. */
  readonly close: Effect.Effect<void>
}

/** What `Lock.layer` builds. */
export const build = (backend: LockBackend["Service"], scope: Scope.Scope): Effect.Effect<Lock["Service"]> =>
  Effect.map(Scope.provide(open(backend), scope), (locks) => {
    const known = layers.get(backend) ?? new Set()
    layers.set(backend, known.add(locks))
    return serviceOf(locks)
  })

/** A lock over a fresh scripted backend, until the scope of the test closes. */
export const fixture = Effect.fnUntraced(function*(
  options?: ScriptedBackend.Options
): Effect.fn.Return<Fixture, never, Scope.Scope> {
  const backend = yield* ScriptedBackend.make(options)
  const scope = yield* Scope.fork(yield* Effect.scope)
  const lock = yield* build(backend, scope)
  return { lock, backend, close: Scope.close(scope, Exit.void) }
})

/** What a test leaves behind is released when it has ended, for which time must go on. */
const ending = <A, E, R>(test: Effect.Effect<A, E, R>) =>
  Effect.onExit(test, () => Effect.forkDetach(Effect.repeat(TestClock.adjust("1 second"), { times: 15 })))

/** A test with a lock over a scripted backend. */
export const scenario = <Eff extends Effect.Effect<unknown, unknown, unknown>, A>(
  body: (fixture: Fixture) => Generator<Eff, A, never>
) => ending(Effect.flatMap(fixture(), (made) => Effect.gen(() => body(made))))

export type JumpingFixture = Fixture & Pick<JumpingClock, "sleep" | "block" | "live">

/** The same by a clock that can jump. */
export const jumping = <Eff extends Effect.Effect<unknown, unknown, unknown>, A>(
  body: (fixture: JumpingFixture) => Generator<Eff, A, never>
) =>
  ending(
    Effect.flatMap(jumpingClock, ({ block, clock, live, sleep }) =>
      Effect.flatMap(Effect.provideService(fixture(), Clock.Clock, live), (made) =>
        Effect.gen(() =>
          body({ ...made, block, live, sleep })
        )).pipe(
          Effect.provideService(Clock.Clock, clock)
        ))
  )
