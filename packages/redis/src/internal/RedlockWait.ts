/**
 * Asking until there is an answer: at once, when a release is heard of, and now and then, because notices get lost.
 */
import type { Grant, LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type { Attempt, Claim } from "./RedlockAttempt.ts"
import { backendError } from "./RedlockNode.ts"
import type { Notices, Watch } from "./RedlockNotices.ts"
import type { Rounds, Taken } from "./RedlockRounds.ts"

/** What waiting needs. */
export interface Means {
  readonly rounds: Rounds
  readonly notices: Notices
  readonly now: () => bigint
  readonly nextClaim: (attempt: Attempt) => Claim
  /** For how long servers are asked again that can not be reached. */
  readonly limit: (attempt: Attempt) => Duration.Duration
}

/** How long one who waits goes on without looking, in milliseconds: at random between the two. */
const [least, most] = [200, 500]

/** For how long a majority is waited for to tell of releases: without them one looks now and then all the same. */
const patience = Duration.millis(250)

/** How often somebody who does not wait tries again when nobody got the key. */
const maxTies = 5

const givenBack = backendError("acquire", "Protocol", "this attempt was given back before")

/** Those who met once shall not meet again: a random part of a time that doubles. */
const afterTie = (ties: number) =>
  Effect.flatMap(Random.next, (part) => Effect.sleep(1 + part * Math.min(5 * 2 ** ties, 100)))

const afterFailure = (failures: number) =>
  Effect.flatMap(Random.next, (part) => Effect.sleep((1 + part) * Math.min(25 * 2 ** failures, 200)))

/** Asks once; what came of an attempt that failed is given back before anything else is done for it. */
const round = (
  { nextClaim, rounds }: Means,
  attempt: Attempt,
  leader?: number
): Effect.Effect<Taken, LockBackendError> =>
  Effect.suspend(() => {
    if (attempt.isOver) return Effect.fail(givenBack)
    // An attempt that was granted is asked for again under the same value.
    const held = attempt.claim?.token !== undefined && !attempt.claim.isOver ? attempt.claim : undefined
    const claim = held ?? nextClaim(attempt)
    return Effect.flatMap(rounds.take(claim, leader), (taken): Effect.Effect<Taken, LockBackendError> => {
      // Interrupted here, the claim is the attempt's, and is given back with it.
      if (attempt.isOver) return Effect.fail(givenBack)
      return taken._tag === "Granted" ? Effect.succeed(taken) : Effect.as(Effect.ignore(rounds.giveBack(claim)), taken)
    })
  })

const again = Effect.fnUntraced(function*(means: Means, attempt: Attempt, until: bigint, first: Taken) {
  let taken = first
  for (let failures = 0; taken._tag === "Failed"; failures++) {
    if (means.now() >= until || (taken.error.reason !== "Unreachable" && taken.error.reason !== "Timeout")) {
      return yield* taken.error
    }
    yield* afterFailure(failures)
    taken = yield* round(means, attempt)
  }
  return taken
})

/** Asks again as long as too few servers can be reached, within the limit. */
const reach = (means: Means, attempt: Attempt, leader?: number) =>
  Effect.suspend(() => {
    const until = means.now() + Duration.toNanosUnsafe(means.limit(attempt))
    return Effect.flatMap(round(means, attempt, leader), (taken) =>
      taken._tag === "Failed" ? again(means, attempt, until, taken) : Effect.succeed(taken))
  })

/** Asks, and once more when those who came at the same time got in one another's way. */
export const tryAcquire = Effect.fnUntraced(
  function*(means: Means, attempt: Attempt): Effect.fn.Return<Option.Option<Grant>, LockBackendError> {
    let taken = yield* reach(means, attempt)
    for (let ties = 0; taken._tag === "Refused" && taken.isTie && ties < maxTies; ties++) {
      yield* afterTie(ties)
      taken = yield* reach(means, attempt)
    }
    return taken._tag === "Granted" ? Option.some(taken.grant) : Option.none()
  }
)

const wait = Effect.fnUntraced(function*(means: Means, attempt: Attempt, watch: Watch) {
  const { rounds } = means
  let taken = yield* reach(means, attempt, rounds.leader())
  for (let ties = 0; taken._tag === "Refused";) {
    if (taken.isTie) {
      yield* afterTie(ties++)
      taken = yield* reach(means, attempt, rounds.leader())
      continue
    }
    ties = 0
    const part = yield* Random.next
    const expiry = taken.freeInMillis < 0 ? most : taken.freeInMillis + 1 + part * 10
    const isFree = yield* watch.sleep(
      Duration.millis(Math.min(least + part * (most - least), expiry)),
      rounds.leader()
    )
    // A leader is for those who come at the same time; it may be the one that keeps the key for somebody who died.
    taken = yield* isFree ? reach(means, attempt, rounds.leader()) : reach(means, attempt)
  }
  return taken.grant
})

const standBy = (means: Means, attempt: Attempt): Effect.Effect<Grant, LockBackendError> =>
  Effect.acquireUseRelease(
    Effect.interruptible(means.notices.watch(attempt.request.key, Duration.min(patience, means.limit(attempt)))),
    (watch) => {
      attempt.onOver = watch.wake
      return wait(means, attempt, watch)
    },
    (watch) => watch.leave
  )

/** Waits until the key is ours. */
export const acquire = (means: Means, attempt: Attempt): Effect.Effect<Grant, LockBackendError> =>
  Effect.flatMap(
    reach(means, attempt),
    (taken) => taken._tag === "Granted" ? Effect.succeed(taken.grant) : standBy(means, attempt)
  )
