/**
 * Releasing: what a request holds, what it may still get, and the place of one that the next takes.
 */
import { Errors } from "@dlock/core/backend"
import type { LockRequest, Released } from "@dlock/core/LockBackend"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Limits } from "./calls.ts"
import { isFull } from "./errors.ts"
import * as holds from "./holds.ts"
import type { Place } from "./holds.ts"
import { type Backend, type Leaving, unlessGone } from "./line.ts"
import * as requests from "./requests.ts"
import type { Session } from "./session.ts"
import * as sessions from "./session.ts"

/** How long a release waits for the answer of what is on its way, which tells whether there is anything to release. */
const grace = "500 millis"

/** A late copy of a release finds nothing to remove. */
const limitsOf = ({ commandTimeout }: Backend, place: Place): Limits => ({
  total: place.limit(commandTimeout),
  onUnknown: () => place.mayBeRemoved = true
})

/** Without an answer to a copy, or with a client that may have sent one, nothing follows from a key that is not there. */
const released = ({ client }: Backend, { mayBeRemoved }: Place, wasThere: boolean): Released =>
  wasThere ? "released" : mayBeRemoved || client.isGiven ? "unknown" : "gone"

/** Removes the key of a request that may still put it. */
export const withdraw = (
  backend: Backend,
  place: Place,
  session: Session
): Effect.Effect<Released, LockBackendError> => {
  const own = place.keysOn(session, backend.root)
  const limits = limitsOf(backend, place)
  return unlessGone(backend, session, backend.client.txnOnLease("release", requests.withdraw(own), limits)).pipe(
    Effect.tap(() => Effect.sync(() => session.marks++)),
    Effect.catchIf(isFull, () => backend.client.txn("release", requests.withdrawOnly(own), limits)),
    Effect.map((response) => response === undefined ? "gone" : released(backend, place, requests.withdrew(response)))
  )
}

/** Removes what the request has, when nothing asks for it any more. */
const leave = (backend: Backend, place: Place): Effect.Effect<Released, LockBackendError> => {
  const { isUnknown, revision, session } = place
  if (session === undefined || session.ended !== undefined) return Effect.succeed("gone")
  if (isUnknown) return withdraw(backend, place, session)
  if (revision === undefined) return Effect.succeed("gone")
  const { client, root } = backend
  return Effect.map(
    client.txn("release", requests.release(place.keysOn(session, root), revision), limitsOf(backend, place)),
    ({ succeeded }) => released(backend, place, succeeded)
  )
}

/** Ends the sending. If it may come to a grant in a moment, it is awaited: then no void mark is needed. */
const endSending = ({ sending }: Place): Effect.Effect<void> =>
  sending === undefined || sending.pollUnsafe() !== undefined
    ? Effect.void
    : Effect.andThen(Effect.timeoutOption(Fiber.await(sending), grace), Fiber.interrupt(sending))

/** The release of this key that waits for a request to carry it out. The caller does so, and completes `done`. */
export const claim = ({ leaving }: Backend, key: string): Leaving | undefined => {
  const found = leaving.get(key)
  leaving.delete(key)
  if (found !== undefined) found.isClaimed = true
  return found
}

/**
 * Lets the next request of this process remove the key in the transaction with which it enters the line. Core makes that
 * request right behind the release. `undefined`: the key is to be removed by a transaction of its own.
 */
const handOver = Effect.fnUntraced(function*(
  { leaving, root }: Backend,
  place: Place
): Effect.fn.Return<Released | undefined, LockBackendError> {
  const { isUnknown, request: { key, spare }, revision, session } = place
  // Without a line in this process there is no next request.
  if (spare === 0 || isUnknown || revision === undefined || session === undefined) return undefined
  const one: Leaving = {
    place,
    name: place.keysOn(session, root).place,
    revision,
    isClaimed: false,
    done: Deferred.makeUnsafe()
  }
  leaving.set(key, one)
  const retract = Effect.sync(() => leaving.get(key) === one && leaving.delete(key))
  yield* Effect.ensuring(Effect.yieldNow, retract)
  if (!one.isClaimed) return undefined
  const exit = yield* Effect.exit(Deferred.await(one.done))
  if (Exit.isSuccess(exit)) return exit.value?.succeeded === true ? "released" : undefined
  const error = Cause.findErrorOption(exit.cause)
  if (Option.isSome(error) && Errors.passes(error.value)) return yield* error.value
  // The next request was given up with the transaction on its way. Or the server refuses what puts keys.
  if (Option.isNone(error)) place.mayBeRemoved = true
  return undefined
})

export const release = Effect.fnUntraced(function*(backend: Backend, request: LockRequest) {
  const place = backend.places.get(request)
  if (place === undefined) return "gone"
  const wasHeld = place.state === "held"
  holds.unguard(backend.guard, place)
  yield* endSending(place)
  const handedOver = wasHeld ? yield* handOver(backend, place) : undefined
  const released = handedOver ?? (yield* leave(backend, place))
  place.state = "over"
  sessions.leave(backend.sessions, place)
  return wasHeld ? released : "gone"
})
