import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as TestClock from "effect/testing/TestClock"
import { passes } from "../backend/Errors.ts"
import { LockBackendError } from "../LockError.ts"
import type { Capabilities } from "./Capabilities.ts"

/** How long things last, in milliseconds. */
export interface Limits {
  /** For grants that are to end. */
  readonly minTtl: number
  /** For grants that must not end during a case: longer than any limit, so that an expiry hides no leak. */
  readonly longTtl: number
  readonly granularity: number
  readonly deadWaiterDelay: number
  readonly commandTimeout: number
  /** Longer than anything takes that the backend does at once, shorter than `longTtl`. */
  readonly patience: number
  /** What a busy machine adds to a measured time: for upper limits. */
  readonly slack: number
  /** What a case waits in addition, so that what is over by its time is over for certain. */
  readonly margin: number
  /** Within this time a grant of `minTtl` that is not renewed has ended, and what follows from that has happened. */
  readonly endLimit: number
  /** Within this time every verb is answered or fails. */
  readonly verbLimit: number
}

/** Time that passes, or that the suite lets pass. */
export interface Time {
  /** Milliseconds of monotonic time. */
  readonly now: Effect.Effect<number>
  /** Lets time pass. */
  readonly elapse: (duration: number) => Effect.Effect<void>
  /** A short while, or none for 0: with 0 to 7 a case hits different moments of a request in flight. */
  readonly pause: (length: number) => Effect.Effect<void>
  /** Long enough for a request to be answered. */
  readonly settle: Effect.Effect<void>
  /** The effect must end within `limit`. */
  readonly within: <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    limit: number,
    property: string
  ) => Effect.Effect<A, E, R>
  /** The condition must come true within `limit`. */
  readonly until: <E, R>(
    condition: Effect.Effect<boolean, E, R>,
    limit: number,
    property: string
  ) => Effect.Effect<void, E, R>
  /** Asks again while the failure passes by itself: with real time, a busy machine may answer too late. */
  readonly persist: <A, E, R>(verb: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /**
   * Runs a case that keeps grants of `ttl`, which is `minTtl`, alive by renewing them. With real time it runs again, with
   * twice the ttl, if it fails after the end of what it last reported to `believe`: the machine was too busy for a
   * renewal in time, so the failure shows nothing.
   */
  readonly renewing: <A, E, R>(
    body: (believe: (end: number) => void, ttl: number) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E, R>
}

export const isPending = (fiber: Fiber.Fiber<unknown, unknown>): boolean => fiber.pollUnsafe() === undefined

const millis = (input: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(input))

const isLive = ({ clock }: Capabilities<unknown>): boolean => clock === "live"

export const limitsOf = (capabilities: Capabilities<unknown>): Limits => {
  const minTtl = millis(capabilities.minTtl)
  const granularity = millis(capabilities.granularity ?? 0)
  const commandTimeout = millis(capabilities.commandTimeout ?? "5 seconds")
  const patience = isLive(capabilities) ? 30_000 : 10_000
  const slack = isLive(capabilities) ? 10_000 : 0
  const margin = isLive(capabilities) ? 500 : 0
  return {
    minTtl,
    longTtl: Math.max(300_000, minTtl * 2),
    granularity,
    deadWaiterDelay: millis(capabilities.deadWaiterDelay ?? minTtl + granularity),
    commandTimeout,
    patience,
    slack,
    margin,
    endLimit: minTtl + granularity + patience,
    verbLimit: commandTimeout * 2 + slack
  }
}

const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

/** `wait` is a moment in which the condition may come true. */
const untilBy = (wait: Effect.Effect<void>): Time["until"] =>
  Effect.fnUntraced(function*(condition, limit, property) {
    const end = (yield* now) + limit
    while (!(yield* condition)) {
      if ((yield* now) >= end) return assert.fail(`${property}, within ${limit} ms`)
      yield* wait
    }
  })

/** Asks again while the failure passes by itself, as a waiter of core does. */
export const persist = <A, E, R>(verb: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.retry(verb, {
    while: (error) => error instanceof LockBackendError && passes(error),
    schedule: Schedule.spaced("50 millis")
  })

const renewingLive = (minTtl: number): Time["renewing"] => (body) => {
  let ttl = minTtl / 2
  const once = Effect.suspend(() => {
    let end = Infinity
    ttl *= 2
    const run = body((at) => {
      end = at
    }, ttl)
    return Effect.catchCause(
      Effect.asSome(run),
      (cause) => Effect.flatMap(now, (at) => at < end ? Effect.failCause(cause) : Effect.succeedNone)
    )
  })
  return Effect.map(
    Effect.repeat(once, { times: 4, until: Option.isSome }),
    Option.getOrElse(() => assert.fail("a grant is renewed before it ends, in one of 5 tries"))
  )
}

const liveTime = (settle: number, minTtl: number): Time => ({
  now,
  elapse: Effect.sleep,
  pause: (length) => length === 0 ? Effect.void : Effect.sleep(length),
  settle: Effect.sleep(settle),
  until: untilBy(Effect.sleep("10 millis")),
  persist,
  renewing: renewingLive(minTtl),
  within: (effect, limit, property) =>
    Effect.timeoutOrElse(effect, {
      duration: limit,
      orElse: () => Effect.sync(() => assert.fail(`${property}, within ${limit} ms`))
    })
})

const step = 50
const turns = Effect.repeat(Effect.yieldNow, { times: 20 })
const untilTested = untilBy(Effect.andThen(turns, TestClock.adjust(step)))

const testTime = (minTtl: number): Time => ({
  now,
  elapse: TestClock.adjust,
  pause: (length) => length === 0 ? Effect.void : Effect.repeat(Effect.yieldNow, { times: length - 1 }),
  settle: turns,
  until: untilTested,
  persist: (verb) => verb,
  renewing: (body) => body(() => {}, minTtl),
  within: Effect.fnUntraced(function*(effect, limit, property) {
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    for (let turn = 0; turn < 20 && isPending(fiber); turn++) yield* Effect.yieldNow
    yield* untilTested(Effect.sync(() => !isPending(fiber)), limit, property)
    return yield* Fiber.join(fiber)
  })
})

export const timeOf = (capabilities: Capabilities<unknown>): Time =>
  isLive(capabilities)
    ? liveTime(millis(capabilities.settle ?? 100), millis(capabilities.minTtl))
    : testTime(millis(capabilities.minTtl))
