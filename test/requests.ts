/**
 * Requests to a backend, as core makes them, and what tests ask about the time.
 */
import type { LockRequest } from "@dlock/core"
import { Clock, Deferred, Duration, Effect } from "effect"

/** A request that remembers what it was told. */
export interface Attempt extends LockRequest {
  readonly losses: Array<string>
  readonly lost: Deferred.Deferred<void>
}

export const attempt = (key: string, ttl: Duration.Input = "30 seconds"): Attempt => {
  const losses: Array<string> = []
  const lost = Deferred.makeUnsafe<void>()
  return {
    key,
    owner: `test/${crypto.randomUUID()}`,
    ttl: Duration.fromInputUnsafe(ttl),
    losses,
    lost,
    onLost: (reason) => {
      losses.push(reason)
      Deferred.doneUnsafe(lost, Effect.void)
    }
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

/** Asks until it is so; the caller's time limit ends it otherwise. */
export const until = <E, R>(condition: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.flatMap(condition, (met) => met ? Effect.void : Effect.andThen(Effect.sleep("10 millis"), until(condition)))
