/**
 * Sessions: etcd leases that many locks live on. One per rung of a ladder of ttls, granted when first asked for, kept
 * alive by one fiber, closed when nobody has used it for a ttl.
 */
import type { LockBackendError, LossReason } from "@dlock/core/LockError"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { EtcdClient, LeaseAnswer } from "./EtcdClient.ts"

/** The longest lease that etcd grants, in seconds. */
export const longest = 9_000_000_000

const steps = [12, 15, 20, 25, 30, 40, 50, 60, 75, 90, 120, 150, 180, 240, 300, 450, 600, 900, 1200, 1800, 2700, 3600]

/** The rung of the ladder for a ttl: whole seconds up to ten, then about a quarter more each, then whole hours. */
export const rungOf = (ttl: Duration.Duration): number => {
  const seconds = Math.ceil(Duration.toSeconds(ttl))
  if (seconds <= 10) return Math.max(seconds, 1)
  return steps.find((step) => step >= seconds) ?? Math.min(Math.ceil(seconds / 3600) * 3600, longest)
}

/** Who lives on a session. */
export interface Member {
  /** What it lives on, or lived on. Set when it joins. */
  session: Session | undefined
  /** The session ended; it has forgotten the member already. Synchronous. */
  readonly onSessionEnd: (reason: LossReason) => void
}

/** After this many void marks, which stay until the lease ends, new attempts go to a new session. */
const mostMarks = 1000

/** What core takes off a ttl: what two clocks may differ by, and what a timer may be late. */
const driftNanos = (ttl: bigint): bigint => ttl / 100n + 2_000_000n

const skewOf = (clock: Clock.Clock): number =>
  clock.currentTimeMillisUnsafe() - Number(clock.monotonicTimeNanosUnsafe()) / 1e6

export class Session {
  readonly id: string
  readonly members = new Set<Member>()
  validFrom: bigint
  ttl: Duration.Duration
  /** How far wall time was ahead of monotonic time when it was last refreshed, in milliseconds. */
  private skew: number
  /** Set once, when it ends. */
  ended: LossReason | undefined
  /** How many void marks stand on it. */
  marks = 0
  /** When a member last came or went. */
  usedAt: bigint
  refreshing: Fiber.Fiber<void, LockBackendError> | undefined

  constructor(answer: LeaseAnswer, skew: number) {
    this.id = answer.id
    this.validFrom = answer.sentAt
    this.usedAt = answer.sentAt
    this.ttl = Duration.seconds(answer.ttl)
    this.skew = skew
  }

  /** `skew` is that of before the request. */
  refreshed(answer: LeaseAnswer, skew: number): void {
    this.validFrom = answer.sentAt
    this.ttl = Duration.seconds(answer.ttl)
    this.skew = skew
  }

  get ttlNanos(): bigint {
    return Duration.toNanosUnsafe(this.ttl)
  }

  /** When it is over for us, whatever the network says. */
  get deadline(): bigint {
    return this.validFrom + this.ttlNanos - driftNanos(this.ttlNanos)
  }

  /** A quarter of the ttl: a grant on it is then never so old that core would have it confirmed. */
  get refreshAt(): bigint {
    return this.validFrom + this.ttlNanos / 4n
  }

  /** Whether new members may come. */
  takes(now: bigint): boolean {
    return this.ended === undefined && this.marks < mostMarks && now < this.deadline
  }

  /** So old that it should have been refreshed already. */
  isDue(clock: Clock.Clock): boolean {
    return clock.monotonicTimeNanosUnsafe() - this.validFrom >= this.ttlNanos / 3n
  }

  /** Wall time ran ahead since: the machine slept, and the server counted on. */
  isDoubtful(clock: Clock.Clock): boolean {
    return skewOf(clock) - this.skew > Number(driftNanos(this.ttlNanos)) / 1e6
  }

  isIdle(now: bigint): boolean {
    return this.members.size === 0 && now - this.usedAt >= this.ttlNanos
  }
}

export interface Sessions {
  /** Puts a member on a session for this ttl. It may have ended by the time the caller goes on: see `ended`. */
  readonly join: (member: Member, ttl: Duration.Duration) => Effect.Effect<Session, LockBackendError>
  readonly leave: (member: Member) => void
  /** Asks the server now, or joins who is asking already. It may have ended afterwards. */
  readonly refresh: (session: Session) => Effect.Effect<void, LockBackendError>
  /** The server said that it does not have it. */
  readonly gone: (session: Session) => void
}

const toMillis = (nanos: bigint): number => Math.max(Number(nanos) / 1e6, 0)

/** How long a layer that closes waits for its sessions to be closed, in milliseconds. */
const longestGoodbye = 1000

const revokeSchedule = Schedule.min([Schedule.exponential("200 millis"), Schedule.spaced("5 seconds")])

export const make = Effect.fnUntraced(function*(
  client: EtcdClient,
  commandTimeout: number
): Effect.fn.Return<Sessions, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const scope = yield* Effect.scope
  const now = () => clock.monotonicTimeNanosUnsafe()
  /** Where new members go, by rung. */
  const current = new Map<number, Session>()
  const opening = new Map<number, Fiber.Fiber<Session, LockBackendError>>()
  /** Those whose lease the server may have. */
  const granted = new Set<Session>()

  const end = (session: Session, reason: LossReason): void => {
    if (session.ended !== undefined) return
    session.ended = reason
    const members = [...session.members]
    session.members.clear()
    for (const member of members) member.onSessionEnd(reason)
  }

  const gone = (session: Session): void => {
    granted.delete(session)
    end(session, "session")
  }

  const revoke = (session: Session, total: number) =>
    Effect.tap(client.revoke(session.id, { total }), () => Effect.sync(() => granted.delete(session)))

  /** Ends it here, and then at the server, which may keep it for longer than we count. */
  const close = (session: Session, reason: LossReason) => {
    end(session, reason)
    return revoke(session, commandTimeout).pipe(Effect.retry(revokeSchedule), Effect.ignore, Effect.forkIn(scope))
  }

  const keepAlive = Effect.fnUntraced(function*(session: Session) {
    const skew = skewOf(clock)
    const answer = yield* client.keepAlive(session.id, {
      total: toMillis(session.deadline - now()),
      each: Math.min(commandTimeout, Duration.toMillis(session.ttl) / 4)
    })
    if (answer.ttl <= 0) return gone(session)
    session.refreshed(answer, skew)
  })

  const refresh = (session: Session): Effect.Effect<void, LockBackendError> =>
    Effect.suspend(() => {
      if (session.ended !== undefined) return Effect.void
      // The process was frozen, and this came before the session's own fiber.
      if (now() >= session.deadline) return Effect.asVoid(close(session, "expired"))
      if (session.refreshing !== undefined && session.refreshing.pollUnsafe() === undefined) {
        return Fiber.join(session.refreshing)
      }
      return Effect.forkIn(keepAlive(session), scope).pipe(
        Effect.tap((fiber) => Effect.sync(() => session.refreshing = fiber)),
        Effect.flatMap(Fiber.join)
      )
    })

  /** The life of a session after its grant. */
  const watchOver = Effect.fnUntraced(function*(session: Session) {
    while (session.ended === undefined) {
      yield* Effect.sleep(toMillis(session.refreshAt - now()))
      if (session.ended !== undefined) continue
      if (session.isIdle(now())) yield* close(session, "session")
      else if (now() < session.deadline && Exit.isSuccess(yield* Effect.exit(refresh(session)))) continue
      else if (now() >= session.deadline) yield* close(session, "expired")
      else yield* Effect.sleep(Duration.toMillis(session.ttl) / 16)
    }
  })

  const open = Effect.fnUntraced(function*(rung: number) {
    const skew = skewOf(clock)
    const answer = yield* client.grant(rung, { total: Math.min(commandTimeout, rung * 1000) })
    const session = new Session(answer, skew)
    granted.add(session)
    current.set(rung, session)
    yield* Effect.forkIn(watchOver(session), scope)
    return session
  })

  const opened = (rung: number): Effect.Effect<Session, LockBackendError> => {
    const fiber = opening.get(rung)
    if (fiber !== undefined && fiber.pollUnsafe() === undefined) return Fiber.join(fiber)
    return Effect.forkIn(open(rung), scope).pipe(
      Effect.tap((fiber) => Effect.sync(() => opening.set(rung, fiber))),
      Effect.flatMap(Fiber.join)
    )
  }

  const enter = (session: Session, member: Member): Session => {
    session.usedAt = now()
    member.session = session
    if (session.ended === undefined) session.members.add(member)
    return session
  }

  yield* Effect.addFinalizer(() =>
    Effect.forEach(
      granted,
      (session) => Effect.ignore(revoke(session, Math.min(commandTimeout, longestGoodbye))),
      { concurrency: "unbounded", discard: true }
    )
  )

  return {
    join: (member, ttl) =>
      Effect.suspend(() => {
        const rung = rungOf(ttl)
        const session = current.get(rung)
        return session !== undefined && session.takes(now())
          ? Effect.succeed(enter(session, member))
          : Effect.map(opened(rung), (session) => enter(session, member))
      }),
    leave: (member) => {
      if (member.session === undefined) return
      member.session.usedAt = now()
      member.session.members.delete(member)
    },
    refresh,
    gone
  }
})
