/**
 * The verbs of the backend.
 */
import type { Grant, LockBackend, LockBackendError, LockRequest, Released } from "@dlock/core"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { release as releaseClaim, take } from "./claims.ts"
import type { Client } from "./client.ts"
import { closed, isCrowded, type MysqlError, name, senseless, unsupported } from "./errors.ts"
import * as Names from "./names.ts"
import type { Settings } from "./options.ts"
import * as Requests from "./requests.ts"
import { becameReadOnly, readState } from "./server.ts"
import * as Session from "./session.ts"
import * as Sessions from "./sessions.ts"
import * as Tokens from "./tokens.ts"
import * as Waiting from "./waiting.ts"

type Backend = LockBackend["Service"]

/** What the verbs share. */
interface Parts {
  readonly settings: Settings
  readonly sessions: Sessions.Sessions
  readonly source: Tokens.Source
  readonly waiting: Waiting.Waiting
  readonly claims: WeakMap<LockRequest, Session.Claim>
}

const check: Backend["check"] = (_, ttl) =>
  ttl > Session.longest * 1000 ? "MySQL ends idle sessions after a year at most" : undefined

const begin = ({ claims, settings }: Parts, request: LockRequest): Session.Claim => {
  const claim = Session.claim(request, Names.of(settings.keyPrefix, request.key))
  claims.set(request, claim)
  return claim
}

const lost = closed("the session that held the lock ended")

const newTokens = (source: Tokens.Source, claim: Session.Claim, spare: number) =>
  Effect.tap(source.next(claim, spare), (tokens) =>
    Effect.sync(() => {
      if (tokens !== undefined) {
        claim.tokens = tokens
      } else if (claim.stage === "held") {
        // The session does not have the lock any more.
        Session.finish(claim)
      }
    }))

/** The grant of a request that has its lock. */
const grant = ({ source }: Parts, claim: Session.Claim): Effect.Effect<Grant, MysqlError> =>
  Effect.flatMap(
    claim.stage === "held" && claim.tokens === undefined
      ? newTokens(source, claim, claim.request.spare)
      : Effect.succeed(claim.tokens),
    (tokens) =>
      tokens === undefined || claim.session === undefined
        ? Effect.fail(lost)
        : Effect.succeed(Session.grant(claim.session, tokens))
  )

const tryAcquire = (parts: Parts): Backend["tryAcquire"] => (request) =>
  Effect.suspend(() => {
    const claim = begin(parts, request)
    return Effect.flatMap(
      take(parts.sessions, claim, parts.source),
      (taken) => taken ? Effect.asSome(Effect.suspend(() => grant(parts, claim))) : Effect.succeedNone
    )
  }).pipe(Effect.mapError(parts.settings.fail("acquire")))

const acquire = (parts: Parts): Backend["acquire"] => (request) =>
  Effect.suspend(() => {
    const claim = begin(parts, request)
    // Where this program has a line, a try would only be one more statement before the wait.
    const taken = Waiting.hasLine(parts.waiting, claim.name)
      ? Effect.succeed(false)
      : Effect.catchIf(take(parts.sessions, claim, parts.source), isCrowded, () => Effect.succeed(false))
    return Effect.andThen(
      Effect.flatMap(taken, (taken) => taken ? Effect.void : Waiting.wait(parts.waiting, claim)),
      Effect.suspend(() => grant(parts, claim))
    )
  }).pipe(Effect.mapError(parts.settings.fail("acquire")))

const renew =
  ({ claims, sessions, settings, source }: Parts): Backend["renew"] => (request, { fresh = false, spare }) =>
    Effect.suspend(() => {
      const claim = claims.get(request)
      const session = claim?.session
      if (claim?.stage !== "held" || session === undefined) {
        return Effect.succeedNone
      }
      const { allowReadOnly } = settings
      return Session.refresh(session, claim, { allowReadOnly, fresh, time: sessions.timers.now() }).pipe(
        Effect.andThen(spare === undefined ? Effect.succeed(undefined) : newTokens(source, claim, spare)),
        Effect.catch((error) => claim.stage === "held" ? Effect.fail(error) : Effect.succeed(undefined)),
        Effect.map((tokens) => claim.stage === "held" ? Option.some(Session.validity(session, tokens)) : Option.none())
      )
    }).pipe(Effect.mapError(settings.fail("renew")))

const release = ({ claims, sessions, settings }: Parts): Backend["release"] => (request) =>
  Effect.suspend((): Effect.Effect<Released, MysqlError> => {
    const claim = claims.get(request)
    return claim === undefined ? Effect.succeed("gone") : releaseClaim(sessions, claim)
  }).pipe(Effect.mapError(settings.fail("release")))

/** The server tells that a session holds the lock, and not for which owner. */
const inspect = ({ sessions, settings }: Parts): Backend["inspect"] => (key) =>
  Effect.suspend(() => {
    const name = Names.of(settings.keyPrefix, key)
    return Sessions.askIdle(sessions, ({ connection }) => connection.ask(Requests.inspect(name)))
  }).pipe(
    Effect.flatMap((cell) => {
      const [waiting, holder] = cell?.split(",") ?? []
      return waiting === undefined
        ? Effect.fail(senseless("the server gave no number"))
        : Effect.succeed({ holder: holder === undefined ? Option.none() : Option.some({}), waiting: Number(waiting) })
    }),
    Effect.mapError(settings.fail("inspect"))
  )

const revoke = ({ settings }: Parts): Backend["revoke"] => () =>
  Effect.fail(settings.fail("revoke")(unsupported("to end a session would end its other locks, too")))

const ping = ({ sessions, settings }: Parts): Backend["ping"] =>
  Sessions.askIdle(sessions, ({ connection, server }) => connection.ask(Requests.state(server.readOnly))).pipe(
    Effect.filterOrFail(
      (cell) => settings.allowReadOnly || !readState(cell).isReadOnly,
      () => becameReadOnly
    ),
    Effect.mapError(settings.fail("ping")),
    Effect.asVoid
  )

/** A backend over `client`, checked and ready. */
export const make = Effect.fnUntraced(function*(
  client: Client,
  settings: Settings
): Effect.fn.Return<Backend, LockBackendError, Scope.Scope> {
  const { sessions, source } = yield* Effect.gen(function*() {
    const sessions = yield* Sessions.make(client, settings)
    return { sessions, source: yield* Tokens.make(sessions) }
  }).pipe(Effect.mapError(settings.fail("connect")))
  const waiting = yield* Waiting.make(sessions, source)
  const parts: Parts = { settings, sessions, source, waiting, claims: new WeakMap() }
  return {
    name,
    freedBy: "session",
    tellsWanted: false,
    check,
    tryAcquire: tryAcquire(parts),
    acquire: acquire(parts),
    renew: renew(parts),
    release: release(parts),
    inspect: inspect(parts),
    revoke: revoke(parts),
    ping: ping(parts)
  }
})
