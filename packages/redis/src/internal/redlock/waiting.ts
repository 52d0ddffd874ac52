/**
 * Asking until there is an answer: at once, when a release is heard of, and now and then, because messages get lost.
 */
import type { Grant, LockBackendError } from "@dlock/core"
import { Errors } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as subscription from "../subscription.ts"
import type { Attempt, Claim } from "./attempts.ts"
import { channelOf, keysOn } from "./attempts.ts"
import { errors } from "./node.ts"
import * as rounds from "./rounds.ts"
import type { Quorum, Taken } from "./rounds.ts"

/** What waiting needs. */
export interface Means {
  readonly quorum: Quorum
  readonly nextClaim: (attempt: Attempt) => Claim
  /** For how long servers are asked again that cannot be reached, in milliseconds. */
  readonly limit: (attempt: Attempt) => number
}

/** How long a waiter goes on without looking, in milliseconds: at random between the two. */
const [least, most] = [200, 500]

/** For how long a majority is waited for to tell of releases: without them one looks now and then all the same. */
const patience = 250

/** How often a request that does not wait tries again when no request got the key. */
const maxTies = 5

const over = Effect.fail(errors.protocol("acquire", { detail: "this request was released before" }))

/** Adds a random part, so that two clients do not collide twice, to a pause that doubles. */
const afterTie = (ties: number) =>
  Effect.flatMap(Random.next, (part) => Effect.sleep(1 + part * Math.min(5 * 2 ** ties, 100)))

const afterFailure = (failures: number) =>
  Effect.flatMap(Random.next, (part) => Effect.sleep((1 + part) * Math.min(25 * 2 ** failures, 200)))

/** Asks once; what came of a round that failed is released before anything else is done for the request. */
const round = (
  { nextClaim, quorum }: Means,
  attempt: Attempt,
  leader?: number
): Effect.Effect<Taken, LockBackendError> =>
  Effect.suspend(() => {
    if (attempt.isOver) return over
    const claim = nextClaim(attempt)
    return Effect.flatMap(
      rounds.take(quorum, claim, attempt.request.spare, leader),
      (taken): Effect.Effect<Taken, LockBackendError> => {
        // Interrupted here, the claim is the request's, and is released with it.
        if (attempt.isOver) return over
        return taken._tag === "Granted"
          ? Effect.succeed(taken)
          : Effect.as(Effect.ignore(rounds.release(quorum, claim)), taken)
      }
    )
  })

type Answer = Exclude<Taken, { readonly _tag: "Failed" }>

/** Asks again as long as too few servers can be reached, within the limit. */
const reach = Effect.fnUntraced(
  function*(means: Means, attempt: Attempt, leader?: number): Effect.fn.Return<Answer, LockBackendError> {
    const until = means.quorum.now() + means.limit(attempt)
    let taken = yield* round(means, attempt, leader)
    for (let failures = 0; taken._tag === "Failed"; failures++) {
      if (means.quorum.now() >= until || !Errors.passes(taken.error)) return yield* Effect.fail(taken.error)
      yield* afterFailure(failures)
      taken = yield* round(means, attempt)
    }
    return taken
  }
)

/** Asks, and once more when requests of the same time got in each other's way. */
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

/** What a waiter hears of a key. */
interface Watch {
  /** The servers that told of a release since the last sleep. */
  readonly heard: Set<number>
  /** The servers that tell. */
  readonly told: Set<number>
  readonly look: Latch.Latch
  readonly ready: Latch.Latch
  leader: number
}

/** Listens for releases of a key on every server; answers how to end it. */
const listen = ({ majority, nodes }: Quorum, key: string, watch: Watch): () => void => {
  const ends = nodes.map((node, i) => {
    const name = channelOf(keysOn(node, key)[0])
    const channel: subscription.Channel = {
      onMessage: () => {
        watch.heard.add(i)
        if (watch.heard.size >= majority || watch.leader === i) watch.look.openUnsafe()
      },
      onLive: () => {
        watch.told.add(i)
        if (watch.told.size >= majority) watch.ready.openUnsafe()
      },
      onDeaf: () => {
        watch.told.delete(i)
      }
    }
    subscription.add(node.subscription, name, channel)
    return () => subscription.remove(node.subscription, name, channel)
  })
  return () => ends.forEach((end) => end())
}

/** Sleeps until the key seems to be free, or the time is over. `true`: it seems to be free. */
const sleep = (watch: Watch, millis: number, leader: number): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    watch.leader = leader
    if (watch.heard.has(leader)) watch.look.openUnsafe()
    return Effect.map(Effect.timeoutOption(watch.look.await, millis), () => {
      const { size } = watch.heard
      watch.heard.clear()
      watch.look.closeUnsafe()
      return size > 0
    })
  })

const wait = Effect.fnUntraced(function*(means: Means, attempt: Attempt, watch: Watch) {
  const { quorum } = means
  yield* Effect.timeoutOption(watch.ready.await, Math.min(patience, means.limit(attempt)))
  let taken = yield* reach(means, attempt, rounds.leader(quorum))
  for (let ties = 0; taken._tag === "Refused";) {
    if (taken.isTie) {
      yield* afterTie(ties++)
      taken = yield* reach(means, attempt, rounds.leader(quorum))
      continue
    }
    ties = 0
    const part = yield* Random.next
    const expiry = taken.freeInMillis < 0 ? most : taken.freeInMillis + 1 + part * 10
    const isFree = yield* sleep(watch, Math.min(least + part * (most - least), expiry), rounds.leader(quorum))
    // A leader is for requests of the same time; it may be the one server that keeps the key for an owner that died.
    taken = yield* isFree ? reach(means, attempt, rounds.leader(quorum)) : reach(means, attempt)
  }
  return taken.grant
})

const standBy = (means: Means, attempt: Attempt): Effect.Effect<Grant, LockBackendError> =>
  Effect.suspend(() => {
    const watch: Watch = {
      heard: new Set(),
      told: new Set(),
      look: Latch.makeUnsafe(false),
      ready: Latch.makeUnsafe(false),
      leader: 0
    }
    const end = listen(means.quorum, attempt.request.key, watch)
    return Effect.ensuring(wait(means, attempt, watch), Effect.sync(end))
  })

/** Waits until the key is ours. */
export const acquire = (means: Means, attempt: Attempt): Effect.Effect<Grant, LockBackendError> =>
  Effect.flatMap(
    reach(means, attempt),
    (taken) => taken._tag === "Granted" ? Effect.succeed(taken.grant) : standBy(means, attempt)
  )
