/**
 * The verbs of the lock: taking it, renewing it, and what is asked beside; waiting in line and releasing have files of
 * their own.
 */
import type { Grant, Inspection, LockBackend, LockRequest, Renewal } from "@dlock/core/LockBackend"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { EtcdClient } from "./client.ts"
import { isForbidden } from "./errors.ts"
import * as holds from "./holds.ts"
import type { Place } from "./holds.ts"
import {
  type Backend,
  board,
  grant,
  mostTries,
  noSession,
  pauseBetweenTries,
  placeOf,
  refresh,
  send,
  tokensOf,
  unlessGone,
  validityOf
} from "./line.ts"
import * as names from "./names.ts"
import { release, withdraw } from "./releasing.ts"
import * as requests from "./requests.ts"
import type { Session } from "./session.ts"
import * as sessions from "./session.ts"
import { acquire } from "./waiting.ts"
import * as watches from "./watches.ts"

const isHeld = ({ isGone, session, state }: Place): boolean =>
  state === "held" && !isGone && session !== undefined && session.ended === undefined

/** The key is held by another owner. Core does not release what was refused, so a late copy must meet the void mark. */
const refused = (
  backend: Backend,
  place: Place,
  session: Session
): Effect.Effect<Option.Option<Grant>, LockBackendError> =>
  Effect.map(place.isUnknown ? withdraw(backend, place, session) : Effect.void, () => {
    place.isUnknown = false
    sessions.leave(backend.sessions, place)
    place.session = undefined
    return Option.none()
  })

/** Takes the key if it is free. */
const tryAcquire = Effect.fnUntraced(function*(backend: Backend, request: LockRequest) {
  const place = placeOf(backend, request)
  for (let tries = 0; tries < mostTries; tries++) {
    if (tries > 0) yield* Effect.sleep(pauseBetweenTries)
    const session = yield* board(backend, place)
    if (session.ended !== undefined) continue
    const own = place.keysOn(session, backend.root)
    place.isGone = false
    const response = yield* send(backend, place, session, () => ({ request: requests.take(own) }), (response) => {
      place.revision = requests.taken(response, own)
    })
    if (response !== undefined && place.revision === undefined && !place.isGone) {
      return yield* refused(backend, place, session)
    }
    const granted = grant(backend, place, session, place.revision)
    if (granted !== undefined) return Option.some(granted)
  }
  return yield* noSession
})

/** Writes the key again, for a new token. Without a token to get, only looks whether the key is there. */
const confirm = Effect.fnUntraced(
  function*(backend: Backend, place: Place, session: Session, revision: bigint, isPass: boolean) {
    const { client, root } = backend
    const own = place.keysOn(session, root)
    const limits = { total: place.limit(backend.commandTimeout) }
    const request = (isPass ? requests.pass : requests.check)(own, revision)
    const response = yield* unlessGone(backend, session, client.txnOnLease("renew", request, limits))
    if (response === undefined) return undefined
    const confirmed = requests.checked(response, own)
    if (confirmed === undefined) {
      if (place.revision === revision) place.lose("taken")
      return undefined
    }
    if (confirmed.isWanted) place.request.onWanted()
    return isPass ? requests.revisionOf(response) : revision
  }
)

const renew = Effect.fnUntraced(function*(backend: Backend, request: LockRequest, { fresh = false, spare }: Renewal) {
  const place = backend.places.get(request)
  const session = place?.session
  if (place === undefined || session === undefined || !isHeld(place)) return Option.none()
  if (fresh || session.isStale(backend.clock)) {
    yield* refresh(backend, place, session, "renew", fresh ? backend.client.now() : undefined)
  }
  const { revision } = place
  if (!isHeld(place) || revision === undefined) return Option.none()
  if (!fresh && spare === undefined) return Option.some(validityOf(session))
  const token = yield* confirm(backend, place, session, revision, spare !== undefined)
  if (token === undefined || !isHeld(place)) return Option.none()
  const tokens = spare === undefined ? undefined : tokensOf(token)
  return Option.some({ ...validityOf(session), tokens })
})

/** The holder, the waiters, and how long the lease of the holder has left. */
const inspect = Effect.fnUntraced(function*(
  { client, commandTimeout, root }: Backend,
  key: string
): Effect.fn.Return<Inspection, LockBackendError> {
  const limits = { total: commandTimeout }
  const { line } = names.of(root, key)
  const response = yield* client.range("inspect", requests.inspect(line), limits)
  const lease = response.kvs[0]?.lease ?? "0"
  const remaining = lease === "0" ? undefined : yield* client.remaining(lease, limits).pipe(
    // The lease of another program may carry keys that we may not see.
    Effect.catchIf(isForbidden, () => Effect.undefined)
  )
  return requests.inspected(line, response, remaining)
})

const revoke = Effect.fnUntraced(function*({ client, commandTimeout, root }: Backend, key: string, owner: string) {
  let mayBeRemoved = false
  const limits = { total: commandTimeout, onUnknown: () => mayBeRemoved = true }
  const { line } = names.of(root, key)
  const holder = requests.heldBy(line, owner, yield* client.range("revoke", requests.holder(line), limits))
  if (holder === undefined) return false
  mayBeRemoved = false
  const { succeeded } = yield* client.txn("revoke", requests.revoke(holder), limits)
  return succeeded || mayBeRemoved
})

/** The verbs over a client. */
export const make = Effect.fnUntraced(function*(
  client: EtcdClient,
  { commandTimeout, root }: { readonly root: string, readonly commandTimeout: number }
): Effect.fn.Return<
  Pick<LockBackend["Service"], "tryAcquire" | "acquire" | "renew" | "release" | "inspect" | "revoke" | "ping">,
  never,
  Scope.Scope
> {
  const all = yield* sessions.make(client, commandTimeout)
  const streams = watches.make(client, commandTimeout)
  yield* Effect.addFinalizer(() => Effect.sync(() => streams.current?.stream.close()))
  const backend: Backend = {
    client,
    root,
    commandTimeout,
    clock: yield* Clock.Clock,
    scope: yield* Effect.scope,
    sessions: all,
    watches: streams,
    guard: yield* holds.make({ client, watches: streams, sessions: all, commandTimeout, root }),
    places: new WeakMap(),
    leaving: new Map()
  }
  return {
    tryAcquire: (request) => tryAcquire(backend, request),
    acquire: (request) => acquire(backend, request),
    renew: (request, renewal) => renew(backend, request, renewal),
    release: (request) => release(backend, request),
    inspect: (key) => inspect(backend, key),
    revoke: (key, owner) => revoke(backend, key, owner),
    ping: Effect.asVoid(client.txn("ping", requests.ping(root), { total: commandTimeout })).pipe(
      Effect.catchIf(isForbidden, () => Effect.void)
    )
  }
})
