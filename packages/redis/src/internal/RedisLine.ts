/**
 * Waiting for a key: a place in the server's line, kept by a small request now and then, until the key is handed over.
 */
import type { Grant, LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Attempt } from "./RedisAttempts.ts"
import { livenessMillis } from "./RedisScripts.ts"
import type { Taken, Verbs } from "./RedisVerbs.ts"
import type { Waiter, WakeUps } from "./RedisWakeUps.ts"

/** How often one who waits shows that he does, and looks whether a message was lost. */
const refreshMillis = livenessMillis / 3

/**
 * Stands in line until the key is ours.
 *
 * A key that was handed over is ours for a moment only, until we confirm; the token is the confirmation's, because the
 * message may be an old one. If the moment has passed we stand in line again, with the ticket that we had.
 */
const stand = Effect.fnUntraced(
  function*(verbs: Verbs, wakeUps: WakeUps, attempt: Attempt, waiter: Waiter, first: Taken) {
    let taken = first
    while (taken._tag === "Waiting") {
      const { holderMillis, rank, ticket } = taken
      const expiry = rank === 0 && holderMillis >= 0 ? holderMillis + 1 : refreshMillis
      const handed = yield* waiter.sleep(Duration.millis(Math.min(refreshMillis, expiry)))
      if (handed) {
        const confirmed = yield* verbs.confirm(attempt)
        if (Option.isSome(confirmed)) return confirmed.value
      }
      taken = yield* verbs.take(attempt, ticket)
    }
    yield* wakeUps.doubt
    return taken.grant
  }
)

/** The waiter is there before anybody can tell it anything. */
const line = (verbs: Verbs, wakeUps: WakeUps, attempt: Attempt): Effect.Effect<Grant, LockBackendError> =>
  Effect.suspend(() => {
    const waiter = wakeUps.register(attempt.owner)
    const granted = Effect.flatMap(
      verbs.take(attempt, ""),
      (taken) => taken._tag === "Granted" ? Effect.succeed(taken.grant) : stand(verbs, wakeUps, attempt, waiter, taken)
    )
    return Effect.ensuring(granted, waiter.leave)
  })

/**
 * Waits until the key is ours. As long as nobody of this process ever waited there is no subscription, so the key is
 * first tried without a place in line. To be called when it is to begin.
 */
export const acquire = (verbs: Verbs, wakeUps: WakeUps, attempt: Attempt): Effect.Effect<Grant, LockBackendError> => {
  if (wakeUps.isSubscribed()) return line(verbs, wakeUps, attempt)
  return Effect.flatMap(verbs.take(attempt), (taken) =>
    taken._tag === "Granted"
      ? Effect.succeed(taken.grant)
      : Effect.andThen(wakeUps.subscribed, line(verbs, wakeUps, attempt)))
}
