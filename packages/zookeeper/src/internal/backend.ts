/**
 * The verbs of the backend.
 */
import { Timers } from "@dlock/core/backend"
import type { LockBackend, LockRequest } from "@dlock/core/LockBackend"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { ask, freshValidity, validity } from "./calls.ts"
import { backend, codes, refused } from "./errors.ts"
import { type Entry, entryOf, type Line, moreTokens } from "./holds.ts"
import * as names from "./names.ts"
import { Parents } from "./parents.ts"
import { type Acl, remove } from "./requests.ts"
import { Session, type Settings as SessionSettings } from "./session.ts"
import { barrier, contendersInLine, leaveLine, namesInLine, standInLine, waitBehind } from "./waiting.ts"

type Backend = LockBackend["Service"]

/** What a backend is made of. */
export interface Settings extends Omit<SessionSettings, "nowhere"> {
  readonly prefix: string
  readonly acl: Acl
}

/** What the verbs share. */
interface Parts extends Line {
  readonly prefix: string
  readonly entries: Map<LockRequest, Entry>
}

const begin = (parts: Parts, request: LockRequest): Entry => {
  const entry = entryOf(parts, parts.prefix, request)
  parts.entries.set(request, entry)
  parts.parents.enter(entry.directory)
  return entry
}

const isOccupied = ({ prefix, session }: Parts, key: string, isCurrent: boolean) =>
  Effect.map(
    namesInLine(session, "acquire", names.directoryOf(prefix, key), isCurrent),
    (inLine) => inLine.length > 0
  )

/** Looks at the line before it enters it, so that a key that is held costs no node. */
const tryAcquire = (parts: Parts): Backend["tryAcquire"] => (request) => {
  const leave = () => Effect.as(release(parts)(request), "refused" as const)
  const enter = Effect.suspend(() => standInLine(parts, begin(parts, request), leave))
  return isOccupied(parts, request.key, false).pipe(
    Effect.flatMap((occupied) => occupied ? isOccupied(parts, request.key, true) : Effect.succeed(false)),
    Effect.flatMap((occupied) => occupied ? Effect.succeed("refused" as const) : enter),
    Effect.map((end) => end === "refused" ? Option.none() : Option.some(end))
  )
}

const acquire = (parts: Parts): Backend["acquire"] => (request) =>
  Effect.suspend(() => standInLine<never>(parts, begin(parts, request), waitBehind(parts)))

const renew = (parts: Parts): Backend["renew"] => (request, { fresh = false, spare }) =>
  Effect.suspend(() => {
    const { entries, session } = parts
    const entry = entries.get(request)
    if (entry?.isHeld !== true) return Effect.succeedNone
    const more = spare === undefined ? Effect.undefined : moreTokens(parts, entry, spare)
    const renewed = fresh ? freshValidity(session, "renew") : validity(session, "renew")
    return Effect.map(Effect.all([more, renewed]), ([tokens, validity]) => {
      if (!entry.isHeld) return Option.none()
      return Option.some(tokens === undefined ? validity : { ...validity, tokens })
    })
  })

const release = (parts: Parts): Backend["release"] => (request) =>
  Effect.suspend(() => {
    const { entries, parents } = parts
    const entry = entries.get(request)
    if (entry === undefined) return Effect.succeed("gone")
    return Effect.map(leaveLine(parts, entry), (released) => {
      if (entries.delete(request)) parents.leave(entry.directory)
      return released
    })
  })

/** A server may tell what was: that the key is free is told only behind a write. */
const inspect = ({ prefix, session }: Parts): Backend["inspect"] => (key) => {
  const look = (isCurrent: boolean) => contendersInLine(session, "inspect", names.directoryOf(prefix, key), isCurrent)
  return look(false).pipe(
    Effect.flatMap((seen) => seen.length > 0 ? Effect.succeed(seen) : look(true)),
    Effect.map(([holder, ...waiting]) => ({
      holder: Option.map(Option.fromUndefinedOr(holder), ({ owner }) => ({ owner })),
      waiting: waiting.map(({ owner }) => owner)
    }))
  )
}

/** A node that is the first in line stays the first until it is removed, so to remove it ends this hold and no other. */
const revoke = ({ prefix, session }: Parts): Backend["revoke"] => (key, owner) =>
  Effect.flatMap(contendersInLine(session, "revoke", names.directoryOf(prefix, key), true), ([holder]) => {
    if (holder?.owner !== owner) return Effect.succeed(false)
    return Effect.flatMap(ask(session, "revoke", remove(holder.node)), ([reply]) => {
      if (reply?.code === codes.ok) return Effect.succeed(true)
      return reply?.code === codes.noNode ? Effect.succeed(false) : Effect.fail(refused("revoke", reply?.code))
    })
  })

const ping = (session: Session, operation: string): Effect.Effect<void, LockBackendError> =>
  Effect.flatMap(
    ask(session, operation, barrier(session)),
    ([reply]) =>
      reply?.code === codes.noNode
        ? Effect.void
        : Effect.fail(refused(operation, reply?.code, session.settings.servers))
  )

/**
 * The backend over a session of its own, which ends with the scope. Fails when no server answers within the command
 * timeout, or the credentials give no right to the prefix.
 */
export const make = Effect.fnUntraced(function*(
  settings: Settings
): Effect.fn.Return<Backend, LockBackendError, Scope.Scope> {
  const { acl, prefix } = settings
  const clock = yield* Clock.Clock
  const timers = yield* Timers.make
  const session = yield* Effect.acquireRelease(
    Effect.sync(() => new Session({ ...settings, nowhere: names.nowhere(prefix) }, timers, clock)),
    (session) => session.close
  )
  const parents = new Parents(prefix, acl, session)
  const parts: Parts = { session, parents, acl, prefix, entries: new Map() }
  yield* Effect.forkScoped(session.keep)
  yield* Effect.forkScoped(parents.keep)
  // The session is still kept meanwhile, which limits the wait.
  yield* Effect.addFinalizer(() => parents.sweep(0))
  yield* ping(session, "connect")
  return {
    name: backend,
    freedBy: "session",
    tellsWanted: true,
    check: names.keyProblem,
    tryAcquire: tryAcquire(parts),
    acquire: acquire(parts),
    renew: renew(parts),
    release: release(parts),
    inspect: inspect(parts),
    revoke: revoke(parts),
    ping: ping(session, "ping")
  }
})
