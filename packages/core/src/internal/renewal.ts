/**
 * What keeps a hold: the confirmation of its grant, its renewals, and its loss when they do not come.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Grant, Renewal, Validity } from "../LockBackend.ts"
import type { LockBackendError, LossReason } from "../LockError.ts"
import {
  drift,
  extend,
  type Hold,
  isKept,
  limitOf,
  malformed,
  renewEvery,
  schedule,
  suspect,
  takeTokens,
  unanswered,
  type Upkeep
} from "./hold.ts"
import { startRelease, withdraw } from "./release.ts"

/** The next renewal after one that failed; doubled for each. */
const firstRenewalRetry = 100
/** How long a hold that the suspension used up is kept while the backend is asked. */
const longestConfirmation = 1000

/**
 * Takes in a grant. What was long on its way, or on its way while the machine was suspended, is confirmed by a renewal
 * first: a late answer out of a dead network must not start a critical section. `false`: the grant is over.
 */
export const confirmGrant = (hold: Hold, grant: Grant): Effect.Effect<boolean, LockBackendError> => {
  const now = hold.layer.watchdog.look()
  const problem = malformed(hold, "acquire", grant, true)
  if (problem !== undefined) return Effect.fail(problem)
  hold.validFrom = Math.min(grant.validFrom, now)
  hold.ttl = grant.ttl
  extend(hold, grant, now)
  takeTokens(hold, grant)
  return now - hold.validFrom < hold.ttl / 3 && hold.certain
    ? Effect.succeed(now < hold.deadline && hold.reason === undefined)
    : confirmByRenewal(hold)
}

const confirmByRenewal = (hold: Hold): Effect.Effect<boolean, LockBackendError> =>
  Effect.flatMap(hold.layer.backend.renew(hold.request, { fresh: true }), (answer) => {
    if (Option.isNone(answer)) return Effect.succeed(false)
    const problem = malformed(hold, "renew", answer.value, false)
    if (problem !== undefined) return Effect.fail(problem)
    const now = hold.layer.watchdog.look()
    extend(hold, answer.value, now)
    takeTokens(hold, answer.value)
    return hold.certain
      ? Effect.succeed(now < hold.deadline && hold.reason === undefined)
      : Effect.andThen(Effect.sleep(firstRenewalRetry), Effect.suspend(() => confirmByRenewal(hold)))
  })

/** Renews in the background, unless a renewal is under way. */
export const startRenewal = (hold: Hold, renewal: Renewal): Fiber.Fiber<void, LockBackendError> | undefined => {
  if (hold.state !== "held" || hold.renewal !== undefined) return hold.renewal
  const { backend, watchdog } = hold.layer
  const now = watchdog.now()
  unanswered(hold, now)
  // While it is not answered, a warning comes half way to the end of the hold, and then the end.
  hold.slack = 0
  hold.askedAt = now
  watchdog.set(hold, warningAt(hold))
  const asked = renewal.fresh === true || hold.certain ? renewal : { ...renewal, fresh: true }
  const fiber = hold.layer.fork(
    Effect.flatMap(
      Effect.exit(Effect.suspend(() => backend.renew(hold.request, asked))),
      (exit) => renewed(hold, asked, exit)
    )
  )
  if (fiber.pollUnsafe() !== undefined) return fiber
  hold.renewal = fiber
  fiber.addObserver(() => {
    hold.renewal = undefined
  })
  return fiber
}

const renewed = (
  hold: Hold,
  renewal: Renewal,
  exit: Exit.Exit<Option.Option<Validity>, LockBackendError>
): Effect.Effect<void, LockBackendError> => {
  hold.fetches = false
  if (hold.state !== "held") return Effect.void
  const now = hold.layer.watchdog.look()
  if (exit._tag === "Failure") return renewalFailed(hold, renewal, exit.cause, now)
  if (Option.isNone(exit.value)) {
    hold.layer.telemetry.renewal("refused")
    lose(hold, "taken")
    return Effect.void
  }
  const validity = exit.value.value
  const problem = malformed(hold, "renew", validity, false)
  if (problem !== undefined) return renewalFailed(hold, renewal, Cause.fail(problem), now)
  hold.failures = 0
  hold.layer.telemetry.renewal("renewed")
  extend(hold, validity, now)
  if (!check(hold, now)) return Effect.void
  if (hold.certain) schedule(hold, now)
  else askAgain(hold, now)
  if (renewal.spare !== undefined) {
    if (validity.tokens === undefined) hold.layer.renewsTokens = false
    takeTokens(hold, validity)
    hold.keeper.next(hold, validity.tokens !== undefined)
  }
  if (hold.certain) hold.changed()
  return Effect.void
}

const renewalFailed = (
  hold: Hold,
  renewal: Renewal,
  cause: Cause.Cause<LockBackendError>,
  now: number
): Effect.Effect<void, LockBackendError> => {
  hold.layer.telemetry.renewal("failed")
  // Without a token no lease can work under it. To ask again at once would spin where the backend fails at once.
  if (renewal.spare !== undefined) startRelease(hold)
  // A hold that is not renewed by itself is only asked for again when it must be confirmed.
  else if (renewEvery(hold) !== Number.POSITIVE_INFINITY || !hold.certain) askAgain(hold, now)
  else hold.layer.watchdog.set(hold, limitOf(hold))
  const error = Cause.findErrorOption(cause)
  const message = `Lock "${hold.request.key}" is not renewed yet`
  const log = Option.isSome(error)
    ? Effect.logWarning(`${message}: ${error.value.message}`)
    : Effect.logWarning(message, cause)
  return Effect.andThen(Effect.ignoreCause(log), Effect.failCause(cause))
}

const askAgain = (hold: Hold, now: number): void => {
  const backoff = firstRenewalRetry * 2 ** Math.min(hold.failures++, 10)
  hold.slack = 0
  hold.layer.watchdog.set(hold, Math.min(now + Math.min(backoff, hold.ttl / 10), limitOf(hold)))
}

/** Asks for a fresh renewal now, behind the one that is under way. */
export const renewNow = (hold: Hold): Effect.Effect<void, LockBackendError> =>
  Effect.suspend(() => {
    if (hold.state !== "held") return Effect.void
    if (hold.renewal !== undefined) return Effect.andThen(Fiber.await(hold.renewal), renewNow(hold))
    const fiber = startRenewal(hold, { fresh: true })
    return fiber === undefined ? Effect.void : fiber.pollUnsafe() ?? Fiber.join(fiber)
  })

/** Waits until a suspended hold is confirmed, or lost. */
export const confirmed = (hold: Hold): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (hold.state !== "held" || hold.certain) return resume(Effect.void)
    hold.onChange(() => resume(Effect.void))
  })

/** It ended while it was wanted. */
export const lose = (hold: Hold, reason: LossReason): void => {
  if (hold.state === "asking") hold.reason ??= reason
  if (hold.state !== "held") return
  const now = hold.layer.watchdog.now()
  const { tenant } = hold
  hold.state = "lost"
  hold.reason = reason
  hold.slack = 0
  if (reason === "closed" && tenant !== undefined) hold.keptUntil = tenant.keepsUntil
  const end = Math.max(hold.validFrom + hold.ttl, now)
  // A section has the time until the backend lets go of the key by itself to close what it opened.
  if (tenant?.isSection) hold.layer.watchdog.set(hold, end)
  // The deadline is earlier than the end by the server's clock, until which the key is to stay taken.
  else if (reason === "expired" && isKept(hold, now)) hold.layer.watchdog.set(hold, Math.min(end, hold.keptUntil))
  else startRelease(hold)
  tenant?.lose(reason, now)
  hold.changed()
}

/** Reads the deadline: `false` when it is not held, or no longer. */
export const check = (hold: Hold, now: number): boolean => {
  if (hold.state === "held" && now >= limitOf(hold)) lose(hold, now >= hold.deadline ? "expired" : "maxHold")
  return hold.state === "held"
}

const ring = (hold: Hold, now: number): void => {
  if (hold.state === "lost") startRelease(hold)
  else if (check(hold, now)) {
    if (hold.renewal !== undefined) warnUnanswered(hold, now)
    else if (hold.tenant === undefined && now >= hold.keptUntil) hold.keeper.next(hold)
    else startRenewal(hold, {})
  }
}

const warningAt = (hold: Hold): number => (hold.askedAt + limitOf(hold)) / 2

/** An operator is to hear of an outage before it costs the lock. */
const warnUnanswered = (hold: Hold, now: number): void => {
  if (now < warningAt(hold)) return hold.layer.watchdog.set(hold, warningAt(hold))
  hold.layer.watchdog.set(hold, limitOf(hold))
  const left = Math.round(limitOf(hold) - now)
  const message = `Lock "${hold.request.key}" is not renewed yet: no answer, and it is lost in ${left} ms`
  hold.layer.fork(Effect.ignoreCause(Effect.logWarning(message)))
}

/** The machine was suspended, or its clock was set forward. */
const suspended = (hold: Hold, slept: number, now: number): void => {
  if (hold.state === "asking") suspect(hold, now)
  if (hold.state !== "held") return
  const asked = now + Math.min(longestConfirmation, hold.ttl / 3)
  hold.deadline = Math.min(hold.deadline, Math.max(hold.deadline - slept, asked))
  // The deadline allows for a clock that is set by a little.
  if (slept <= drift(hold.ttl)) return schedule(hold, now)
  suspect(hold, now)
  // A renewal in flight is answered first, and asked again after that.
  if (hold.renewal !== undefined) hold.layer.watchdog.set(hold, limitOf(hold))
  else startRenewal(hold, { fresh: true })
}

const close = (hold: Hold): void => {
  if (hold.state === "asking") withdraw(hold)
  else if (hold.state !== "held") return
  else if (hold.tenant !== undefined) lose(hold, "closed")
  else startRelease(hold)
}

export const upkeep: Upkeep = { ring, suspended, close, lose }
