/**
 * A connection that holds locks, or awaits one. GET_LOCK counts and knows no owner, so a session asks for a name only
 * while it neither has it nor awaits it: `names` says who does.
 */
import type { Grant, LossReason, Validity } from "@dlock/core"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Ask } from "./MysqlAsk.ts"
import type { Attempt } from "./MysqlAttempt.ts"
import type { Connection } from "./MysqlConnection.ts"
import { closed, type MysqlError } from "./MysqlError.ts"
import type { Server } from "./MysqlServer.ts"
import * as Sql from "./MysqlSql.ts"

export interface Session {
  readonly connection: Connection
  readonly server: Server
  /** Who holds, takes or awaits what on it. */
  readonly names: Map<string, Attempt>
  /** `wait_timeout`, in seconds; 0 before it was set. */
  seconds: number
  /** When the last probe that was answered had been sent. */
  probedFrom: bigint
  probe: Ask<string | null> | undefined
  /** Where the next probe begins in `names`. */
  probeAt: number
}

/** The longest `wait_timeout` of both servers. */
export const longest = 31_536_000

// Ten steps per power of ten, so that programs with many different ttls have few sessions.
const steps = [10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100]

/** The `wait_timeout` for a ttl: whole seconds, up to ten as they are, beyond rounded up to a step. */
export const secondsFor = (ttl: Duration.Duration): number => {
  const seconds = Math.max(1, Math.ceil(Duration.toSeconds(ttl)))
  if (seconds <= 10) {
    return seconds
  }
  let unit = 1
  while (unit * 100 < seconds) {
    unit *= 10
  }
  return Math.min(longest, unit * (steps.find((step) => step * unit >= seconds) ?? 100))
}

const second = 1_000_000_000n

/** The session is probed at most this often: six times per ttl, but once per second where the ttl allows that. */
const probeInterval = (seconds: number): bigint => {
  const ttl = BigInt(seconds) * second
  const quarter = ttl / 4n
  const sixth = ttl / 6n
  const atMost = quarter < second ? quarter : second
  return sixth > atMost ? sixth : atMost
}

export const make = (connection: Connection, server: Server): Session => ({
  connection,
  server,
  names: new Map(),
  seconds: 0,
  probedFrom: connection.answeredFrom(),
  probe: undefined,
  probeAt: 0
})

/** The server counts its `wait_timeout` from the end of the last statement, which was not before it was sent. */
export const validity = (session: Session): Validity => ({
  validFrom: session.connection.answeredFrom(),
  ttl: Duration.seconds(session.seconds)
})

export const grant = (session: Session, fencingToken: bigint): Grant => ({
  validFrom: session.connection.answeredFrom(),
  ttl: Duration.seconds(session.seconds),
  fencingToken
})

/** The server ended it, or may be about to. */
export const isStale = (session: Session, now: bigint): boolean =>
  session.seconds > 0 &&
  now - session.connection.answeredFrom() > (BigInt(session.seconds) * second * 3n) / 4n

/** Empty, alive and not about to be ended by the server. */
export const isReusable = (session: Session, now: bigint): boolean =>
  session.connection.isOpen() && !session.connection.isStalled() && session.names.size === 0 &&
  session.connection.isQuiet() && !isStale(session, now)

/** Tells everybody who holds something on it. Those who still ask learn it from their answers. */
export const lose = (session: Session, reason: LossReason): void => {
  for (const attempt of session.names.values()) {
    if (attempt.stage === "held") {
      attempt.lose(reason)
    }
  }
}

/** How many names one probe looks at. */
const sample = 64

/**
 * Asks the session whether it is still the one we opened, and whether it still has its locks. That keeps it alive, too.
 * A session has all its locks or is gone, unless something between it and us plays tricks; so a probe looks at the name
 * that asks for it and at some more, in turn, and not at ten thousand.
 */
const probe = (session: Session, asking: Attempt, now: bigint): Ask<string | null> => {
  const { connection } = session
  const held = [...session.names.values()].filter((attempt) => attempt.stage === "held")
  const from = session.probeAt % Math.max(1, held.length)
  const turn = [...held.slice(from), ...held.slice(0, from)].slice(0, sample)
  session.probeAt = from + turn.length
  for (const attempt of new Set([asking, ...turn])) {
    connection.ask(Sql.owns(attempt.name), (exit) => {
      if (Exit.isSuccess(exit) && exit.value !== "1" && attempt.session === session && attempt.stage === "held") {
        session.names.delete(attempt.name)
        attempt.lose("taken")
      }
    })
  }
  const ask = connection.ask(Sql.session, (exit) => {
    session.probe = undefined
    if (Exit.isFailure(exit)) {
      return
    }
    if (exit.value === String(connection.id)) {
      session.probedFrom = now
    } else {
      connection.close(closed("another session answered: a proxy shares sessions between clients"))
    }
  })
  session.probe = ask
  return ask
}

/** Probes the session unless that was done a moment ago. Fails when no answer comes. */
export const refresh = (session: Session, asking: Attempt): Effect.Effect<void, MysqlError> =>
  Effect.flatMap(Clock.monotonicTimeNanos, (now) => {
    const { connection } = session
    if (connection.isOpen() && !connection.isStalled() && now - session.probedFrom < probeInterval(session.seconds)) {
      return Effect.void
    }
    return Effect.asVoid((session.probe ?? probe(session, asking, now)).await)
  })
