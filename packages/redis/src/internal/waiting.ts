/**
 * Waiting for a key: a place in the server's line, kept by a small request now and then, until the key is handed over.
 */
import type { Grant, LockBackendError } from "@dlock/core"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Attempt } from "./attempts.ts"
import * as inboxes from "./inbox.ts"
import type { Inbox } from "./inbox.ts"
import * as requests from "./requests.ts"
import type { Requests } from "./requests.ts"
import { livenessMillis } from "./scripts.ts"

/** How often a waiter shows that it is alive, and looks whether a message was lost. */
const refreshMillis = livenessMillis / 3

/** How long a connection for messages is waited for before a waiter stands in line without. */
const patience = 1000

/**
 * Stands in line until the key is ours.
 *
 * A key that was handed over is ours for a moment only, until we confirm; the tokens are the confirmation's, because the
 * message may be an old one. If the moment has passed we stand in line again, with the ticket that we had.
 */
const stand = Effect.fnUntraced(
  function*(means: Requests, inbox: Inbox, attempt: Attempt): Effect.fn.Return<Grant, LockBackendError> {
    const { owner } = attempt.request
    const waiter = inboxes.register(inbox, owner)
    return yield* Effect.ensuring(
      Effect.gen(function*() {
        let taken = yield* requests.take(means, attempt, "")
        let isFirstLook = true
        while (taken._tag !== "Granted") {
          const { holderMillis, ticket } = taken._tag === "Waiting" ? taken : { holderMillis: -1, ticket: "" }
          const expiry = holderMillis >= 0 ? holderMillis + 1 : refreshMillis
          const handed = yield* inboxes.sleep(waiter, Math.min(refreshMillis, expiry))
          if (handed) {
            const confirmed = yield* requests.confirm(means, attempt, attempt.request.spare)
            if (Option.isSome(confirmed)) return confirmed.value
          }
          taken = yield* requests.take(means, attempt, ticket)
          isFirstLook = false
        }
        // The key came without a message.
        if (!isFirstLook) inboxes.reportMissed(inbox)
        return taken.grant
      }),
      inboxes.leave(inbox, owner)
    )
  }
)

/**
 * Waits until the key is ours. As long as no request of this process ever waited there is no subscription, so the key is
 * first tried without a place in line.
 */
export const acquire = (means: Requests, inbox: Inbox, attempt: Attempt): Effect.Effect<Grant, LockBackendError> => {
  if (inbox.isLive) return stand(means, inbox, attempt)
  return Effect.flatMap(requests.take(means, attempt), (taken) =>
    taken._tag === "Granted"
      ? Effect.succeed(taken.grant)
      : Effect.andThen(inboxes.live(inbox, Math.min(patience, attempt.limit)), stand(means, inbox, attempt)))
}
