/**
 * The backend over N connections.
 */
import type { LockBackend, LockBackendError } from "@dlock/core"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { reserved } from "./RedisKeys.ts"
import type { Attempt } from "./RedlockAttempt.ts"
import { makeAttempts, nextClaim } from "./RedlockAttempt.ts"
import * as RedlockConnect from "./RedlockConnect.ts"
import type { RedlockNode } from "./RedlockNode.ts"
import { backendName } from "./RedlockNode.ts"
import * as RedlockNotices from "./RedlockNotices.ts"
import { rules } from "./RedlockQuorum.ts"
import * as RedlockRounds from "./RedlockRounds.ts"
import * as RedlockWait from "./RedlockWait.ts"

type Backend = LockBackend["Service"]

/** The time limits of a backend. */
export interface Limits {
  readonly commandTimeout: Duration.Duration
  /** Default: a tenth of the ttl, within the bounds below. */
  readonly nodeTimeout: Duration.Duration | undefined
}

/**
 * The bounds of the time that one server is waited for. As a majority decides, it matters only where the answer of a
 * server that hangs could still make the difference.
 */
const [shortest, longest] = [Duration.millis(50), Duration.millis(250)]

/** The longest ttl: Redis adds the time of day to it and must not overflow. */
const maxTtl = Duration.days(365_000)

const check: Backend["check"] = (key, ttl) => {
  if (key.includes(reserved)) return `"${reserved}" marks the names of the lock's own keys`
  if (Duration.isGreaterThan(ttl, maxTtl)) return "Redis can not count so long a ttl"
  return rules.drift(Duration.toNanosUnsafe(ttl)) >= Duration.toNanosUnsafe(ttl)
    ? "the ttl is shorter than what the clocks of several servers may differ by"
    : undefined
}

export const make = Effect.fnUntraced(function*(
  nodes: ReadonlyArray<RedlockNode>,
  limits: Limits
): Effect.fn.Return<Backend, LockBackendError, Scope.Scope> {
  const { commandTimeout } = limits
  const clock = yield* Clock.Clock
  const now = () => clock.monotonicTimeNanosUnsafe()
  const majority = rules.majority(nodes.length)
  yield* RedlockConnect.connect(nodes, majority, commandTimeout)

  const nodeTimeout = (ttl: Duration.Duration): Duration.Duration => {
    const share = Duration.clamp(Duration.divideUnsafe(ttl, 10), { minimum: shortest, maximum: longest })
    return Duration.min(Duration.min(limits.nodeTimeout ?? share, ttl), commandTimeout)
  }
  const attempts = makeAttempts()
  const rounds = yield* RedlockRounds.make(nodes, now, rules)
  const means: RedlockWait.Means = {
    rounds,
    notices: yield* RedlockNotices.make(nodes, majority, commandTimeout),
    now,
    nextClaim: (attempt) => nextClaim(nodes, attempt, nodeTimeout),
    limit: ({ request }) => Duration.min(commandTimeout, request.ttl)
  }

  /** The same attempt may be asked for twice at once: the second call finds what the first has got. */
  const alone = <A>(attempt: Attempt, call: Effect.Effect<A, LockBackendError>): Effect.Effect<A, LockBackendError> =>
    Effect.suspend(() => {
      if (attempt.busy !== undefined) return Effect.andThen(attempt.busy.await, alone(attempt, call))
      const busy = Latch.makeUnsafe(false)
      attempt.busy = busy
      return Effect.ensuring(
        call,
        Effect.sync(() => {
          attempt.busy = undefined
          busy.openUnsafe()
        })
      )
    })

  return {
    name: backendName,
    tenure: "lease",
    check,
    tryAcquire: (request) =>
      Effect.suspend(() => {
        const attempt = attempts.of(request)
        return Effect.map(alone(attempt, RedlockWait.tryAcquire(means, attempt)), (grant) => {
          if (Option.isNone(grant)) attempts.end(request)
          return grant
        })
      }),
    acquire: (request) =>
      Effect.suspend(() => {
        const attempt = attempts.of(request)
        return alone(attempt, RedlockWait.acquire(means, attempt))
      }),
    renew: (request) =>
      Effect.suspend(() => {
        const { claim, isOver } = attempts.of(request)
        return claim === undefined || isOver ? Effect.succeedNone : rounds.prolong(claim)
      }),
    release: (request) =>
      Effect.suspend(() => {
        const attempt = attempts.of(request)
        attempt.isOver = true
        attempt.onOver?.()
        const { claim } = attempt
        if (claim === undefined) return Effect.succeed(false)
        return Effect.map(rounds.giveBack(claim), (wasOurs) => {
          attempts.end(request)
          return wasOurs
        })
      })
  }
})
