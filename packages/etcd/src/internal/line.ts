/**
 * What the verbs work with, and how a request comes to a key of its own: on a session, by a transaction whose outcome the
 * release knows, to a grant.
 */
import type { Grant, LockRequest, Tokens, Validity } from "@dlock/core/LockBackend"
import type { LockBackendError } from "@dlock/core/LockError"
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { ITxnRequest, ITxnResponse } from "etcd3"
import type { EtcdClient } from "./client.ts"
import { etcd, type LeaseGone } from "./errors.ts"
import * as holds from "./holds.ts"
import { Place } from "./holds.ts"
import * as sessions from "./session.ts"
import type { Session, Sessions } from "./session.ts"
import type { Watches } from "./watches.ts"

/** What the verbs work with. */
export interface Backend {
  readonly client: EtcdClient
  readonly root: string
  readonly commandTimeout: number
  readonly clock: Clock.Clock
  readonly scope: Scope.Scope
  readonly sessions: Sessions
  readonly watches: Watches
  readonly guard: holds.Guard
  /** By identity: the same request comes with every verb. */
  readonly places: WeakMap<LockRequest, Place>
  /** By key: the releases that may be one transaction with the next request. */
  readonly leaving: Map<string, Leaving>
}

/** A release that waits for a moment: the next request for the key may carry it out. */
export interface Leaving {
  readonly place: Place
  /** Its key on the server. */
  readonly name: string
  readonly revision: bigint
  isClaimed: boolean
  /** How the transaction of the next request ended. */
  readonly done: Deferred.Deferred<ITxnResponse | undefined, LockBackendError>
}

/** A session that ends as soon as it is opened is not opened for ever. */
export const mostTries = 5
export const pauseBetweenTries = "50 millis"

export const noSession = etcd.unreachable("acquire", { detail: "every session ended as soon as it was opened" })

export const validityOf = ({ ttl, validFrom }: Session): Validity => ({ validFrom, ttl })

/** One token: revisions cannot be reserved. */
export const tokensOf = (revision: bigint): Tokens => ({ first: revision, spare: 0 })

/** A request for a lease that the server does not have tells that the session is over. */
export const unlessGone = <A>(
  { sessions: all }: Backend,
  session: Session,
  effect: Effect.Effect<A, LockBackendError | LeaseGone>
): Effect.Effect<A | undefined, LockBackendError> =>
  effect.pipe(Effect.catchTag("LeaseGone", () =>
    Effect.sync(() => {
      sessions.gone(all, session)
      return undefined
    })))

/** Asks the server for the session that many share, but no longer than this request may take. */
export const refresh = (
  { commandTimeout, sessions: all }: Backend,
  place: Place,
  session: Session,
  operation: string,
  since?: number
) =>
  Effect.timeoutOrElse(sessions.refresh(all, session, since), {
    duration: place.limit(commandTimeout),
    orElse: () => Effect.fail(etcd.unreachable(operation, { detail: "the session was not refreshed in time" }))
  })

export const placeOf = ({ places }: Backend, request: LockRequest): Place => {
  const place = new Place(request)
  places.set(request, place)
  return place
}

/** The session that the request lives on. A new one if it has none or it ended. */
export const board = (backend: Backend, place: Place): Effect.Effect<Session, LockBackendError> =>
  Effect.suspend(() => {
    const { session } = place
    if (session === undefined || session.ended !== undefined) {
      place.isUnknown = false
      return sessions.join(backend.sessions, place, place.request.ttl)
    }
    return Effect.succeed(session)
  }).pipe(
    // A lease that was refreshed before the machine slept has less time left than it seems.
    Effect.tap((session) =>
      session.wasSuspended(backend.clock) ? refresh(backend, place, session, "acquire") : Effect.void
    )
  )

/** What puts the key of a request; it may be the release of another one too. */
interface Sending {
  readonly request: ITxnRequest
  readonly leaving?: Leaving
}

/**
 * Sends what puts the key, and takes in the answer, in a fiber of the layer: the caller may be interrupted at any
 * moment, and the release has to know what became of the request.
 */
export const send = (
  backend: Backend,
  place: Place,
  session: Session,
  make: () => Sending,
  onAnswer: (response: ITxnResponse) => void
): Effect.Effect<ITxnResponse | undefined, LockBackendError> => {
  const { client, commandTimeout, scope } = backend
  const sent = ({ leaving, request }: Sending) => {
    let { isUnknown } = place
    place.isUnknown = true
    const onUnknown = (): void => {
      isUnknown = true
      if (leaving !== undefined) leaving.place.mayBeRemoved = true
    }
    const answered = <A>(answer: A): A => {
      place.isUnknown = isUnknown
      return answer
    }
    return client.txnOnLease("acquire", request, { total: place.limit(commandTimeout), onUnknown }).pipe(
      Effect.map((response) => {
        onAnswer(response)
        return answered(response)
      }),
      Effect.mapError(answered)
    )
  }
  // Uninterruptible, or a release that was claimed would wait for ever.
  return Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const sending = make()
      const { leaving } = sending
      const answer = unlessGone(backend, session, Effect.suspend(() => sent(sending)))
      return Effect.flatMap(Effect.forkIn(answer, scope, { startImmediately: true }), (fiber) => {
        place.sending = fiber
        fiber.addObserver((exit) => {
          place.sending = undefined
          if (leaving !== undefined) Deferred.doneUnsafe(leaving.done, exit)
        })
        return restore(Fiber.join(fiber))
      })
    })
  )
}

/**
 * The grant, unless the key or the session is gone again. The token is the revision of the store at which the lock was
 * ours: the key of a request that waited is older than tokens that the holder before it got by renewing.
 */
export const grant = (
  { guard }: Backend,
  place: Place,
  session: Session,
  at: bigint | undefined
): Grant | undefined => {
  if (at === undefined || place.isGone || place.revision === undefined || session.ended !== undefined) return undefined
  place.state = "held"
  holds.guard(guard, place)
  return { ...validityOf(session), tokens: tokensOf(at) }
}
