/**
 * A connection that holds locks, or waits for one. GET_LOCK counts and knows no owner, so a session asks for a name only
 * while it neither has it nor waits for it: `names` says which request does.
 */
import type { Grant, LockRequest, LossReason, Released, Tokens, Validity } from "@dlock/core"
import type * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Ask, Connection } from "./connection.ts"
import { closed, type MysqlError } from "./errors.ts"
import * as Requests from "./requests.ts"
import * as Server from "./server.ts"

/** What is known of one request. */
export interface Claim {
  readonly request: LockRequest
  readonly name: string
  /** The `wait_timeout` of the session it wants. */
  readonly seconds: number
  /**
   * `idle`: nothing is asked or held. `asked`: GET_LOCK was asked, and its answer is missing or says nothing. `held`:
   * ours. `releasing`: RELEASE_LOCK was asked. `over`: released or lost.
   */
  stage: "idle" | "asked" | "held" | "releasing" | "over"
  /** The session on which it is asked, held or being released. */
  session: Session | undefined
  /** The GET_LOCK under way, or the last one. */
  ask: Ask<string | null> | undefined
  /** The answer to the RELEASE_LOCK under way, or to the last one. */
  release: Effect.Effect<Released, MysqlError> | undefined
  /** A RELEASE_LOCK was refused, though it may have been executed. */
  refused: boolean
  /** What the answer to GET_LOCK said. */
  tokens: Tokens | undefined
}

export const claim = (request: LockRequest, name: string): Claim => ({
  request,
  name,
  seconds: secondsFor(request.ttl),
  stage: "idle",
  session: undefined,
  ask: undefined,
  release: undefined,
  refused: false,
  tokens: undefined
})

/** A place in the line for a connection to wait on, and later that connection's. */
export interface Place {
  /** Done when there is room for a connection. */
  readonly ready: Deferred.Deferred<void>
  state: "waiting" | "ready" | "left"
  /** Leaves the line, or lets the next one in it have a connection. */
  readonly leave: () => void
}

export interface Session {
  readonly connection: Connection
  readonly server: Server.Server
  /** `CONNECTION_ID()`. */
  readonly id: string
  /** When it was opened. */
  readonly since: number
  /** Its server was in its first second then; a clock that was set back makes the uptime negative. */
  readonly isYoung: boolean
  /** Which request is asked, held or being released on it, by the name of its lock. */
  readonly names: Map<string, Claim>
  /** `wait_timeout`, in seconds; 0 before it was set. */
  seconds: number
  /** It carries one request that waits or has waited, and nothing else: its place among those that do. */
  place: Place | undefined
  /** Called when no request is on it any more. */
  readonly onVacant: (session: Session) => void
  /** When the last probe that was answered had been sent. */
  probedFrom: number
  probe: Ask<string | null> | undefined
  /** Where the next probe begins in `names`. */
  probeAt: number
}

/** The longest `wait_timeout` of both servers. */
export const longest = 31_536_000

// Ten steps per power of ten, so that programs with many different ttls have few sessions.
const steps = [10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100]

/** The `wait_timeout` for a ttl: whole seconds, up to ten as they are, beyond rounded up to a step. */
export const secondsFor = (ttl: number): number => {
  const seconds = Math.max(1, Math.ceil(ttl / 1000))
  if (seconds <= 10) {
    return seconds
  }
  let unit = 1
  while (unit * 100 < seconds) {
    unit *= 10
  }
  return Math.min(longest, unit * (steps.find((step) => step * unit >= seconds) ?? 100))
}

/** The session is probed at most this often: six times per ttl, but once per second where the ttl allows that. */
const probeInterval = (seconds: number): number => Math.max(seconds * 1000 / 6, Math.min(seconds * 250, 1000))

export const make = (
  connection: Connection,
  { server, session, uptime }: Server.Seen,
  onVacant: (session: Session) => void
): Session => ({
  connection,
  server,
  id: session,
  since: connection.answeredFrom(),
  isYoung: uptime === 0,
  names: new Map(),
  seconds: 0,
  place: undefined,
  onVacant,
  probedFrom: connection.answeredFrom(),
  probe: undefined,
  probeAt: 0
})

/** From here on the name is this request's on `session`. One that is being released there goes before it. */
export const bind = (claim: Claim, session: Session): void => {
  session.names.set(claim.name, claim)
  claim.session = session
}

/** The server counts its `wait_timeout` from the end of the last statement, which was not before it was sent. */
export const validity = (session: Session, tokens?: Tokens): Validity => ({
  validFrom: session.connection.answeredFrom(),
  ttl: session.seconds * 1000,
  ...(tokens === undefined ? {} : { tokens })
})

export const grant = (session: Session, tokens: Tokens): Grant => ({ ...validity(session), tokens })

/** The server ended it, or may be about to. */
export const isStale = (session: Session, now: number): boolean =>
  session.seconds > 0 && now - session.connection.answeredFrom() > session.seconds * 750

/** It answers, or is not known not to. */
export const isAlive = ({ connection }: Session): boolean => connection.isOpen() && !connection.isStalled()

/** Empty, alive and not about to be ended by the server. */
export const isReusable = (session: Session, now: number): boolean =>
  isAlive(session) && session.names.size === 0 && session.connection.isQuiet() && !isStale(session, now)

/** Nothing of the request is on its session any more, unless another one took its name over. */
export const unbind = (claim: Claim): void => {
  const { name, session } = claim
  claim.session = undefined
  if (session?.names.get(name) === claim) {
    session.names.delete(name)
    if (session.names.size === 0) {
      session.onVacant(session)
    }
  }
}

/** Ends a request for good. */
export const finish = (claim: Claim): void => {
  claim.stage = "over"
  unbind(claim)
}

/** Ends everything that is held on the session. Requests that still ask learn it from their answers. */
export const loseAll = (session: Session, reason: LossReason): void => {
  for (const claim of [...session.names.values()].filter(({ stage }) => stage === "held")) {
    finish(claim)
    claim.request.onLost(reason)
  }
}

/** How many names one probe looks at. */
const sample = 64

/**
 * Asks the session whether it is still the one we opened, whether its server is still the one that may be written to, and
 * whether it still has its locks. That keeps it alive, too. A session has all its locks or is gone, unless something
 * between it and us changes it; so a probe looks at the name that asks for it and at some more, in turn.
 */
const probe = (session: Session, asking: Claim, now: number, allowReadOnly: boolean): Ask<string | null> => {
  const { connection, names } = session
  const held = [...names.values()].filter((claim) => claim.stage === "held")
  const from = session.probeAt % Math.max(1, held.length)
  const turn = [...held.slice(from), ...held.slice(0, from)].slice(0, sample)
  session.probeAt = from + turn.length
  for (const claim of new Set([asking, ...turn])) {
    connection.ask(Requests.owns(claim.name), (exit) => {
      if (Exit.isSuccess(exit) && exit.value !== "1" && names.get(claim.name) === claim && claim.stage === "held") {
        finish(claim)
        claim.request.onLost("taken")
      }
    })
  }
  const ask = connection.ask(Requests.state(session.server.readOnly), (exit) => {
    if (session.probe === ask) {
      session.probe = undefined
    }
    if (Exit.isFailure(exit)) {
      return
    }
    const { isReadOnly, session: id } = Server.readState(exit.value)
    if (id !== session.id) {
      connection.close(closed("another session answered: a proxy shares sessions between clients"))
    } else if (isReadOnly && !allowReadOnly) {
      connection.close(Server.becameReadOnly)
    } else {
      session.probedFrom = now
    }
  })
  session.probe = ask
  return ask
}

/**
 * Probes the session unless that was done a moment ago and the answer need not be `fresh`. Fails when no answer comes.
 */
export const refresh = (
  session: Session,
  asking: Claim,
  { allowReadOnly, fresh, time }: {
    readonly allowReadOnly: boolean
    readonly fresh: boolean
    readonly time: number
  }
): Effect.Effect<void, MysqlError> =>
  Effect.suspend(() => {
    if (!fresh && isAlive(session) && time - session.probedFrom < probeInterval(session.seconds)) {
      return Effect.void
    }
    const under = session.probe !== undefined && (!fresh || session.probe.isQueued()) ? session.probe : undefined
    return Effect.asVoid((under ?? probe(session, asking, time, allowReadOnly)).await)
  })
