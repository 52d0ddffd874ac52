/**
 * Requests to a backend, as core makes them, and what tests ask about the time.
 */
import { LockBackendError, type LockRequest } from "@dlock/core"
import { Errors } from "@dlock/core/backend"
import { Clock, Deferred, Duration, Effect, Schedule } from "effect"

/** A request that remembers what it was told. */
export interface TestRequest extends LockRequest {
  readonly losses: Array<string>
  readonly lost: Deferred.Deferred<void>
  readonly wanted: Deferred.Deferred<void>
}

/** A request with an owner of its own. */
export const newRequest = (key: string, ttl: Duration.Input = "30 seconds"): TestRequest => {
  const losses: Array<string> = []
  const lost = Deferred.makeUnsafe<void>()
  const wanted = Deferred.makeUnsafe<void>()
  return {
    key,
    owner: `test/${crypto.randomUUID()}`,
    ttl: Duration.toMillis(Duration.fromInputUnsafe(ttl)),
    spare: 0,
    losses,
    lost,
    wanted,
    onLost: (reason) => {
      losses.push(reason)
      Deferred.doneUnsafe(lost, Effect.void)
    },
    onWanted: () => Deferred.doneUnsafe(wanted, Effect.void)
  }
}

/** A key that no other test has. */
export const freshKey = (): string => `key-${crypto.randomUUID()}`

/** How long something takes, in milliseconds. */
export const millis = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const before = yield* Clock.monotonicTimeNanos
    const value = yield* effect
    return [value, Number((yield* Clock.monotonicTimeNanos) - before) / 1e6] as const
  })

/**
 * Ends after this time, and not before what was due earlier has ended too: on a busy machine timers ring late, but in
 * their order.
 */
export const alarm = (after: Duration.Input) =>
  Effect.forkScoped(Effect.andThen(Effect.sleep(after), Effect.sleep("100 millis")), { startImmediately: true })

/** The least of at most ten tries, a time or a count, or the first that is below the limit: no machine is busy each time. */
export const least = <E, R>(limit: number, attempt: (n: number) => Effect.Effect<number, E, R>) => {
  const next = (n: number, found: number): Effect.Effect<number, E, R> =>
    n === 10 || found < limit
      ? Effect.succeed(found)
      : Effect.flatMap(attempt(n), (value) => next(n + 1, Math.min(found, value)))
  return next(0, Infinity)
}

/** Asks until it is so; the caller's time limit ends it otherwise. */
export const until = <E, R>(condition: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.flatMap(condition, (met) => met ? Effect.void : Effect.andThen(Effect.sleep("10 millis"), until(condition)))

/** Asks again while the failure passes by itself: a busy machine does not answer within a short command timeout. */
export const persist = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.retry(effect, {
    while: (error) => error instanceof LockBackendError && Errors.passes(error),
    schedule: Schedule.spaced("50 millis")
  })
