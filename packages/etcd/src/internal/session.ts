/**
 * Sessions: etcd leases that many locks live on. One per rung of a ladder of ttls, granted when first asked for, kept
 * alive by one fiber, closed when nothing has used it for a ttl.
 */
import type { LockBackendError, LossReason } from "@dlock/core/LockError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { EtcdClient, LeaseAnswer } from "./client.ts"

/** The longest lease that etcd grants, in seconds. */
export const longest = 9_000_000_000

const steps = [12, 15, 20, 25, 30, 40, 50, 60, 75, 90, 120, 150, 180, 240, 300, 450, 600, 900, 1200, 1800, 2700, 3600]

/** The rung of the ladder for a ttl: whole seconds up to ten, then about a quarter more each, then whole hours. */
export const rungOf = (ttl: number): number => {
  const seconds = Math.ceil(ttl / 1000)
  if (seconds <= 10) return Math.max(seconds, 1)
  return steps.find((step) => step >= seconds) ?? Math.min(Math.ceil(seconds / 3600) * 3600, longest)
}

/** What lives on a session. */
export interface Member {
  /** What it lives on, or lived on. Set when it joins. */
  session: Session | undefined
  /** The session ended; it has forgotten the member already. Synchronous. */
  readonly onSessionEnd: (reason: LossReason) => void
}

/** A refresh that was asked for. */
interface Refresh {
  readonly since: number
  readonly fiber: Fiber.Fiber<void, LockBackendError>
}

/** After this many void marks, which stay until the lease ends, new requests go to a new session. */
const mostMarks = 1000

/** What core takes off a ttl: what two clocks may differ by, and what a timer may be late. */
const driftOf = (ttl: number): number => ttl / 100 + 2

/** Milliseconds of monotonic time. */
const nowOf = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

const skewOf = (clock: Clock.Clock): number => clock.currentTimeMillisUnsafe() - nowOf(clock)

/** A lease. Times are milliseconds, and moments are those of monotonic time. */
export class Session {
  readonly id: string
  readonly members = new Set<Member>()
  validFrom: number
  ttl: number
  /** How far wall time was ahead of monotonic time when it was last refreshed. */
  private skew: number
  /** Set once, when it ends. */
  ended: LossReason | undefined
  /** How many void marks stand on it. */
  marks = 0
  /** When a member last came or went. */
  usedAt: number
  refreshing: Refresh | undefined

  constructor(answer: LeaseAnswer, skew: number) {
    this.id = answer.id
    this.validFrom = answer.sentAt
    this.usedAt = answer.sentAt
    this.ttl = answer.ttl * 1000
    this.skew = skew
  }

  /** `skew` is that of before the request. */
  refreshed(answer: LeaseAnswer, skew: number): void {
    this.validFrom = answer.sentAt
    this.ttl = answer.ttl * 1000
    this.skew = skew
  }

  /** When it is over for us, whatever the network says. */
  get deadline(): number {
    return this.validFrom + this.ttl - driftOf(this.ttl)
  }

  /** A quarter of the ttl: a grant on it is then never so old that core would have it confirmed. */
  get refreshAt(): number {
    return this.validFrom + this.ttl / 4
  }

  /** Whether new members may come. */
  takes(now: number): boolean {
    return this.ended === undefined && this.marks < mostMarks && now < this.deadline
  }

  /** So old that it should have been refreshed already, or from before the machine slept, while the server counted on. */
  isStale(clock: Clock.Clock): boolean {
    return nowOf(clock) - this.validFrom >= this.ttl / 3 || this.wasSuspended(clock)
  }

  /** Wall time ran ahead since. */
  wasSuspended(clock: Clock.Clock): boolean {
    return skewOf(clock) - this.skew > driftOf(this.ttl)
  }

  isIdle(now: number): boolean {
    return this.members.size === 0 && now - this.usedAt >= this.ttl
  }
}

/** The sessions of a layer. */
export interface Sessions {
  readonly client: EtcdClient
  readonly commandTimeout: number
  readonly clock: Clock.Clock
  readonly scope: Scope.Scope
  /** Where new members go, by rung. */
  readonly current: Map<number, Session>
  readonly opening: Map<number, Fiber.Fiber<Session, LockBackendError>>
  /** Those whose lease the server may have. */
  readonly granted: Set<Session>
}

/** How long a layer that closes waits for its sessions to be closed, in milliseconds. */
const longestClosing = 1000

const revokeSchedule = Schedule.min([Schedule.exponential("200 millis"), Schedule.spaced("5 seconds")])

const end = (session: Session, reason: LossReason): void => {
  if (session.ended !== undefined) return
  session.ended = reason
  const members = [...session.members]
  session.members.clear()
  for (const member of members) member.onSessionEnd(reason)
}

/** The server said that it does not have it. */
export const gone = ({ granted }: Sessions, session: Session): void => {
  granted.delete(session)
  end(session, "session")
}

const revoke = ({ client, granted }: Sessions, session: Session, total: number) =>
  Effect.tap(client.revoke(session.id, { total }), () => Effect.sync(() => granted.delete(session)))

/** Ends it here, and then at the server, which may keep it for longer than we count. */
const close = (sessions: Sessions, session: Session, reason: LossReason) => {
  end(session, reason)
  return revoke(sessions, session, sessions.commandTimeout).pipe(
    Effect.retry(revokeSchedule),
    Effect.ignore,
    Effect.forkIn(sessions.scope)
  )
}

const keepAlive = Effect.fnUntraced(function*(sessions: Sessions, session: Session) {
  const { client, clock, commandTimeout } = sessions
  const skew = skewOf(clock)
  const answer = yield* client.keepAlive(session.id, {
    total: Math.max(session.deadline - nowOf(clock), 0),
    each: Math.min(commandTimeout, session.ttl / 4)
  })
  if (answer.ttl <= 0) return gone(sessions, session)
  session.refreshed(answer, skew)
})

/**
 * Asks the server, or joins a refresh that was asked for at this time or later. The session may have ended afterwards.
 * Default: any that is on its way.
 */
export const refresh = (
  sessions: Sessions,
  session: Session,
  since = Number.NEGATIVE_INFINITY
): Effect.Effect<void, LockBackendError> =>
  Effect.suspend(() => {
    if (session.ended !== undefined) return Effect.void
    const now = nowOf(sessions.clock)
    // The process was frozen, and this came before the session's own fiber.
    if (now >= session.deadline) return Effect.asVoid(close(sessions, session, "expired"))
    const { refreshing } = session
    if (refreshing !== undefined && refreshing.fiber.pollUnsafe() === undefined) {
      return refreshing.since >= since
        ? Fiber.join(refreshing.fiber)
        : Effect.andThen(Fiber.await(refreshing.fiber), refresh(sessions, session, since))
    }
    return Effect.flatMap(Effect.forkIn(keepAlive(sessions, session), sessions.scope), (fiber) => {
      session.refreshing = { since: now, fiber }
      return Fiber.join(fiber)
    })
  })

/** The life of a session after its grant. */
const watchOver = Effect.fnUntraced(function*(sessions: Sessions, session: Session) {
  const now = () => nowOf(sessions.clock)
  while (session.ended === undefined) {
    yield* Effect.sleep(Math.max(session.refreshAt - now(), 0))
    if (session.ended !== undefined) continue
    if (session.isIdle(now())) yield* close(sessions, session, "session")
    else if (now() < session.deadline && Exit.isSuccess(yield* Effect.exit(refresh(sessions, session)))) continue
    else if (now() >= session.deadline) yield* close(sessions, session, "expired")
    else yield* Effect.sleep(session.ttl / 16)
  }
})

const open = Effect.fnUntraced(function*(sessions: Sessions, rung: number) {
  const { client, clock, commandTimeout, current, granted, scope } = sessions
  const skew = skewOf(clock)
  const answer = yield* client.grant(rung, { total: Math.min(commandTimeout, rung * 1000) })
  const session = new Session(answer, skew)
  granted.add(session)
  current.set(rung, session)
  yield* Effect.forkIn(watchOver(sessions, session), scope)
  return session
})

const opened = (sessions: Sessions, rung: number): Effect.Effect<Session, LockBackendError> => {
  const fiber = sessions.opening.get(rung)
  if (fiber !== undefined && fiber.pollUnsafe() === undefined) return Fiber.join(fiber)
  return Effect.flatMap(Effect.forkIn(open(sessions, rung), sessions.scope), (fiber) => {
    sessions.opening.set(rung, fiber)
    return Fiber.join(fiber)
  })
}

const enter = ({ clock }: Sessions, session: Session, member: Member): Session => {
  session.usedAt = nowOf(clock)
  member.session = session
  if (session.ended === undefined) session.members.add(member)
  return session
}

/** Puts a member on a session for this ttl. It may have ended by the time the caller goes on: see `ended`. */
export const join = (sessions: Sessions, member: Member, ttl: number): Effect.Effect<Session, LockBackendError> =>
  Effect.suspend(() => {
    const rung = rungOf(ttl)
    const session = sessions.current.get(rung)
    return session !== undefined && session.takes(nowOf(sessions.clock))
      ? Effect.succeed(enter(sessions, session, member))
      : Effect.map(opened(sessions, rung), (session) => enter(sessions, session, member))
  })

export const leave = ({ clock }: Sessions, member: Member): void => {
  if (member.session === undefined) return
  member.session.usedAt = nowOf(clock)
  member.session.members.delete(member)
}

/** No sessions yet. Those that will be opened are closed with the scope. */
export const make = Effect.fnUntraced(function*(
  client: EtcdClient,
  commandTimeout: number
): Effect.fn.Return<Sessions, never, Scope.Scope> {
  const sessions: Sessions = {
    client,
    commandTimeout,
    clock: yield* Clock.Clock,
    scope: yield* Effect.scope,
    current: new Map(),
    opening: new Map(),
    granted: new Set()
  }
  yield* Effect.addFinalizer(() =>
    Effect.forEach(
      sessions.granted,
      (session) => Effect.ignore(revoke(sessions, session, Math.min(commandTimeout, longestClosing))),
      { concurrency: "unbounded", discard: true }
    )
  )
  return sessions
})

/** The first version in which a leader that was replaced no longer revokes leases that were renewed since. */
const sound = [3, 5, 13]

/** Whether a version comes before the one that is sound. One that cannot be read counts as new. */
export const isOld = (version: string): boolean => {
  const [, ...found] = /^(\d+)\.(\d+)\.(\d+)/.exec(version) ?? []
  const difference = found.map((part, i) => Number(part) - (sound[i] ?? 0)).find((part) => part !== 0)
  return difference !== undefined && difference < 0
}

/** Warns in the log when the member in use is of such a version. One that does not tell it is not asked again. */
export const warnIfOld = (client: EtcdClient, commandTimeout: number): Effect.Effect<void> =>
  client.version({ total: commandTimeout }).pipe(
    Effect.flatMap((version) =>
      isOld(version)
        ? Effect.logWarning(
          `etcd ${version} may revoke leases too early when its leader changes under load, which takes locks away: `
            + `use ${sound.join(".")} or newer`
        )
        : Effect.void
    ),
    Effect.ignore
  )
