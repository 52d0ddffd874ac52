/**
 * What this process holds, and what it released a moment ago, for the time when the server is another one: after a
 * fail-over, a restart, or when an address leads elsewhere. Before anything that the new server grants is given out, it is
 * asked for all that is held, and told again of the last releases, which it may not have received from the old one.
 * Owners are unique, so to repeat a release does no harm, and a hold that the server does not know is lost.
 */
import type { LockBackendError } from "@dlock/core"
import { Timers } from "@dlock/core/backend"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Attempt } from "./attempts.ts"
import * as requests from "./requests.ts"
import type { Requests } from "./requests.ts"

interface PastRelease {
  readonly key: string
  readonly owner: string
  readonly at: number
}

export interface Holds {
  readonly requests: Requests
  readonly fork: (effect: Effect.Effect<unknown>) => Fiber.Fiber<unknown>
  readonly held: Array<Attempt>
  /** The last releases, in the order of time, from `oldest` on. */
  released: Array<PastRelease>
  oldest: number
  /** Rings when some of them may be forgotten. */
  readonly forgetting: Timers.Timer
  /** The servers that were asked for what is held; those without an answer yet are open. */
  readonly settled: Map<object, Deferred.Deferred<void, LockBackendError>>
}

/** How far behind a replica may be when it is promoted, in milliseconds. */
const longestLag = 5000

/** The most releases that are remembered. */
const mostReleases = 10_000

/** At first everything is settled. */
export const make = (requests: Requests, fork: Holds["fork"]): Holds => {
  const holds: Holds = {
    requests,
    fork,
    held: [],
    released: [],
    oldest: 0,
    forgetting: Timers.timer(() => forget(holds)),
    settled: new Map()
  }
  for (const place of requests.connection.places()) {
    const deferred = Deferred.makeUnsafe<void, LockBackendError>()
    Deferred.doneUnsafe(deferred, Effect.void)
    holds.settled.set(place, deferred)
  }
  requests.connection.onPlaces(() => settleAll(holds))
  return holds
}

/** The key is ours from now on. */
export const begin = ({ held }: Holds, attempt: Attempt): void => {
  if (attempt.slot === -1) attempt.slot = held.push(attempt) - 1
}

/** It is not ours any more. */
export const end = ({ held }: Holds, attempt: Attempt): void => {
  const { slot } = attempt
  if (slot === -1) return
  attempt.slot = -1
  const last = held.pop()
  if (last === undefined || last === attempt) return
  held[slot] = last
  last.slot = slot
}

/** It was released. */
export const remember = (holds: Holds, { key, request }: Attempt): void => {
  const { timers } = holds.requests.connection
  const at = timers.now()
  const { forgetting, released } = holds
  released.push({ key, owner: request.owner, at })
  if (released.length - holds.oldest > mostReleases) holds.oldest++
  if (holds.oldest > mostReleases) drop(holds)
  if (forgetting.slot === -1) timers.set(forgetting, at + longestLag)
}

const drop = (holds: Holds): void => {
  holds.released = holds.released.slice(holds.oldest)
  holds.oldest = 0
}

/** Forgets what was released long ago; looks again a second later if there is more. */
const forget = (holds: Holds): void => {
  const { timers } = holds.requests.connection
  const now = timers.now()
  while ((holds.released[holds.oldest]?.at ?? now) <= now - longestLag) holds.oldest++
  drop(holds)
  if (holds.released.length > 0) timers.set(holds.forgetting, now + 1000)
}

/** The hold that an owner names. */
export const find = ({ held }: Holds, owner: string): Attempt | undefined =>
  held.find(({ request }) => request.owner === owner)

/** It was taken from us. */
export const lose = (holds: Holds, attempt: Attempt): void => {
  end(holds, attempt)
  attempt.request.onLost("taken")
}

/** Asks for all that is held at a place, and tells it of the last releases. */
const ask = (holds: Holds, place: object): Effect.Effect<void, LockBackendError> => {
  const { requests: means } = holds
  const isThere = ({ key }: { readonly key: string }) => means.connection.placeOf(key) === place
  const renewals = holds.held.filter(isThere).map((attempt) =>
    // What one of them cannot wait for does not fail the others.
    Effect.map(requests.renew(means, attempt, means.limit), (validity) => {
      if (Option.isNone(validity) && attempt.slot !== -1) lose(holds, attempt)
    })
  )
  const releases = holds.released.slice(holds.oldest).filter(isThere).map(({ key, owner }) =>
    requests.releaseAgain(means, key, owner)
  )
  return Effect.all([...releases, ...renewals], { concurrency: "unbounded", discard: true })
}

/** Waits until a place was asked for what is held there; fails if it did not answer. */
const settle = (holds: Holds, place: object): Effect.Effect<void, LockBackendError> =>
  Effect.suspend(() => {
    const known = holds.settled.get(place)
    if (known !== undefined) return Deferred.await(known)
    const deferred = Deferred.makeUnsafe<void, LockBackendError>()
    holds.settled.set(place, deferred)
    const asked = Effect.tapError(ask(holds, place), () => Effect.sync(() => holds.settled.delete(place)))
    holds.fork(Deferred.into(asked, deferred))
    return Deferred.await(deferred)
  })

/** Settles every place that is new, and forgets those that are gone. */
const settleAll = (holds: Holds): void => {
  const places = holds.requests.connection.places()
  for (const place of holds.settled.keys()) if (!places.includes(place)) holds.settled.delete(place)
  for (const place of places) if (!holds.settled.has(place)) holds.fork(Effect.ignore(settle(holds, place)))
}

/** Waits until the place that has a key is settled; `undefined`: it is. */
export const unsettled = (holds: Holds, attempt: Attempt): Effect.Effect<void, LockBackendError> | undefined => {
  const { connection } = holds.requests
  const place = connection.placeOf(attempt.key)
  const known = place === undefined ? undefined : holds.settled.get(place)
  if (place === undefined || (known !== undefined && Deferred.isDoneUnsafe(known))) return undefined
  const late = () => Effect.fail(connection.toError("acquire", { _tag: "Late" }))
  return Effect.timeoutOrElse(settle(holds, place), { duration: attempt.limit, orElse: late }).pipe(
    // Meanwhile the connection may lead elsewhere.
    Effect.flatMap(() => unsettled(holds, attempt) ?? Effect.void)
  )
}
