/**
 * The backend over a connection.
 */
import type { Grant, LockBackend, LockBackendError, Validity } from "@dlock/core"
import { Errors } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Crypto from "node:crypto"
import * as attempts from "./attempts.ts"
import type { Attempt } from "./attempts.ts"
import type { Connection } from "./client.ts"
import * as holds from "./holds.ts"
import type { Holds } from "./holds.ts"
import * as inboxes from "./inbox.ts"
import type { Inbox } from "./inbox.ts"
import * as names from "./names.ts"
import * as requests from "./requests.ts"
import { backendName } from "./requests.ts"
import type { Requests } from "./requests.ts"
import * as scripts from "./scripts.ts"
import * as subscription from "./subscription.ts"
import * as waiting from "./waiting.ts"

type Backend = LockBackend["Service"]

/** What the verbs work with. */
interface Means {
  readonly requests: Requests
  readonly holds: Holds
  readonly inbox: Inbox
  readonly watches: Watches
  readonly attempts: { readonly of: (request: Parameters<Backend["release"]>[0]) => Attempt }
}

/** Holds whose channel is not stored yet, so that those that join the line cannot tell this process. */
interface Watches {
  /** Those of this round, and those of the round before. */
  young: Array<Attempt>
  old: Array<Attempt>
  readonly some: Latch.Latch
}

/** The pause before a watch that failed is repeated. */
const watchPause = "1 second"

/** How long a hold lasts before it is worth a request to be told of others, in milliseconds: half of it to all of it. */
const shortHold = 40

const watch = ({ holds: all, inbox, requests: means, watches }: Means, attempt: Attempt): Effect.Effect<void> => {
  attempt.watchedAt = means.connection.timers.now()
  const again = Effect.map(Effect.sleep(watchPause), () => {
    watches.old.push(attempt)
    watches.some.openUnsafe()
  })
  const asked = Effect.catchIf(
    Effect.asSome(requests.watch(means, attempt)),
    // The server may be loading its data, while messages arrive already.
    Errors.passes,
    () => Effect.as(again, Option.none())
  )
  return Effect.ignore(Effect.gen(function*() {
    yield* inboxes.live(inbox, means.limit)
    if (!inbox.isLive) return
    const answer = yield* asked
    if (attempt.slot === -1 || Option.isNone(answer)) return
    if (answer.value === "wanted") attempt.request.onWanted()
    else if (answer.value === "gone") holds.lose(all, attempt)
  }))
}

/** A grant is given out when all that was held before on the same server is known to be held still. */
const begun = (
  means: Means,
  attempt: Attempt,
  grant: Grant
): Effect.Effect<Grant, LockBackendError> =>
  Effect.suspend(() => {
    if (attempt.isOver) return Effect.succeed(grant)
    // Before the wait: a server that the connection leads to meanwhile is asked for this one, too.
    holds.begin(means.holds, attempt)
    const unsettled = holds.unsettled(means.holds, attempt)
    if (unsettled === undefined) return Effect.succeed(watched(means, attempt, grant))
    return Effect.tapError(unsettled, () => Effect.sync(() => holds.end(means.holds, attempt))).pipe(
      Effect.map(() => watched(means, attempt, grant))
    )
  })

const watched = (means: Means, attempt: Attempt, grant: Grant): Grant => {
  const { inbox, watches } = means
  if (attempt.slot === -1) return grant
  if (attempt.request.lingers === true) inbox.subscription.fork(watch(means, attempt))
  else {
    watches.young.push(attempt)
    watches.some.openUnsafe()
  }
  return grant
}

/** Messages arrive again: those that joined the line meanwhile could not tell us. */
const watchAgain = ({ held }: Holds, { old, some }: Watches): void => {
  old.push(...held.filter(({ watchedAt }) => watchedAt > 0))
  if (old.length > 0) some.openUnsafe()
}

/** Watches what is held for more than a moment, until the scope closes. */
const keepWatching = (means: Means) => {
  const { inbox, watches } = means
  const round = Effect.gen(function*() {
    yield* watches.some.await
    yield* Effect.sleep(shortHold / 2)
    const due = watches.old.filter(({ slot }) => slot !== -1)
    watches.old = watches.young
    watches.young = []
    if (watches.old.length === 0) watches.some.closeUnsafe()
    for (const attempt of due) inbox.subscription.fork(watch(means, attempt))
  })
  return Effect.forkScoped(Effect.forever(round))
}

const tryAcquire = (means: Means, attempt: Attempt): Effect.Effect<Option.Option<Grant>, LockBackendError> =>
  Effect.flatMap(requests.take(means.requests, attempt), (taken) => {
    if (taken._tag === "Granted") return Effect.asSome(begun(means, attempt, taken.grant))
    // A message that was sent before this one and got lost may still arrive, and core does not release after `none`.
    return attempts.mayBeKept(attempt) ? Effect.as(release(means, attempt), Option.none()) : Effect.succeedNone
  })

const acquire = (means: Means, attempt: Attempt): Effect.Effect<Grant, LockBackendError> =>
  Effect.flatMap(waiting.acquire(means.requests, means.inbox, attempt), (grant) => begun(means, attempt, grant))

const renew = (
  means: Means,
  attempt: Attempt,
  spare: number | undefined
): Effect.Effect<Option.Option<Validity>, LockBackendError> => {
  const { connection } = means.requests
  const renewed: Effect.Effect<Option.Option<Validity>, LockBackendError> = spare === undefined
    ? requests.renew(means.requests, attempt)
    : requests.confirm(means.requests, attempt, spare)
  return Effect.tap(renewed, (validity) => {
    if (Option.isNone(validity)) return Effect.sync(() => holds.end(means.holds, attempt))
    // The holder's channel is stored for some ttls only.
    const age = connection.timers.now() - attempt.watchedAt
    const isOld = attempt.watchedAt > 0 && age > attempts.ttlOf(attempt) * requests.watchedTtls / 2
    return Effect.sync(() => isOld && means.inbox.subscription.fork(watch(means, attempt)))
  })
}

const release = (means: Means, attempt: Attempt) =>
  Effect.suspend(() => {
    attempt.isOver = true
    holds.end(means.holds, attempt)
    // What was only ever refused holds nothing.
    if (!attempts.mayBeKept(attempt)) return Effect.succeed("gone" as const)
    return Effect.tap(requests.release(means.requests, attempt), () =>
      Effect.sync(() => holds.remember(means.holds, attempt)))
  })

/** What a backend does with its connection. */
export interface Settings {
  readonly keyPrefix: string
  /** In milliseconds. */
  readonly commandTimeout: number
}

export const make = Effect.fnUntraced(function*(
  connection: Connection,
  settings: Settings
): Effect.fn.Return<Backend, LockBackendError, Scope.Scope> {
  const limit = settings.commandTimeout
  const server = yield* Effect.mapError(connection.open, (failure) => connection.toError("connect", failure))
  if (server.warning !== undefined) yield* Effect.logWarning(`${backendName}: ${server.warning}`)
  const countsReceivers = !connection.isCluster
  const keyPrefix = connection.keyPrefix + settings.keyPrefix
  const channel = `${keyPrefix}dlock-wake/${Crypto.randomUUID()}`
  const own: Requests = {
    connection,
    scripts: scripts.make(countsReceivers),
    channel,
    limit,
    clockAhead: server.clockAhead
  }
  const messages = yield* subscription.make(connection)
  const held = holds.make(own, messages.fork)
  const known = new WeakMap<object, Attempt>()
  const watches: Watches = { young: [], old: [], some: Latch.makeUnsafe(false) }
  const onLive = () => watchAgain(held, watches)
  const means: Means = {
    requests: own,
    holds: held,
    inbox: inboxes.make({ subscription: messages, channel, holds: held, countsReceivers, limit, onLive }),
    watches,
    attempts: {
      of: (request) => {
        const attempt = known.get(request) ?? attempts.make(request, keyPrefix, limit)
        known.set(request, attempt)
        return attempt
      }
    }
  }
  yield* keepWatching(means)
  const { of } = means.attempts
  return {
    name: backendName,
    freedBy: "ttl",
    tellsWanted: true,
    check: (key, ttl) => names.check(keyPrefix + key, ttl),
    tryAcquire: (request) => Effect.suspend(() => tryAcquire(means, of(request))),
    acquire: (request) => Effect.suspend(() => acquire(means, of(request))),
    renew: (request, { spare }) => Effect.suspend(() => renew(means, of(request), spare)),
    release: (request) => release(means, of(request)),
    inspect: (key) => requests.inspect(own, keyPrefix + key),
    revoke: (key, owner) => requests.revoke(own, keyPrefix + key, owner),
    // A write that changes nothing, which a replica refuses.
    ping: Effect.asVoid(
      Effect.mapError(
        connection.send("persist", [keyPrefix + names.ping], limit),
        (failure) => connection.toError("ping", failure)
      )
    )
  }
})
