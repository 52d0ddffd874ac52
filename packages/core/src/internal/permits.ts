/**
 * Permits, of which a limited number is in use over all processes. How they are taken is in `permitLine.ts`.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { InvalidLockRequest, type LockError, LockLost, LockUnavailable } from "../LockError.ts"
import type * as leases from "./lease.ts"
import * as options from "./options.ts"
import { ended, runTogether, Together, type WithLock } from "./part.ts"
import { lossAbout, type Permit, permitOf } from "./permit.ts"
import { forget, lineOf, pass, type PermitLine, quit, takeInLine, use } from "./permitLine.ts"
import { type Claim, type PermitOptions, takeAtOnce } from "./permitSearch.ts"
import { CurrentSection, held, type ProgramOf, programOf, programProblem } from "./section.ts"

/** How many permits there are, and how many are asked for. */
export interface Amount {
  /** The most permits that are in use at a time, over all processes: 1 to 64. */
  readonly limit: number
  /** How many of them are asked for: 1 to `limit`. Default: 1. */
  readonly permits?: number | undefined
}

const mostPermits = 64

const take = (
  line: PermitLine,
  claim: Claim,
  timeout: number
): Effect.Effect<LockUnavailable | void, Exclude<LockError, LockUnavailable>> => {
  const taking = timeout === 0 ? takeNow(line, claim) : takeInLine(line, claim)
  const answered = Effect.catch(
    taking,
    (error) => error instanceof LockUnavailable ? Effect.succeed(error) : Effect.fail(aboutKey(claim.key, error))
  )
  return timeout === 0 || timeout === Number.POSITIVE_INFINITY ? answered : Effect.timeoutOrElse(answered, {
    duration: timeout,
    orElse: () => Effect.succeed(new LockUnavailable({ key: claim.key, reason: "timeout" }))
  })
}

const takeNow = (line: PermitLine, claim: Claim): Effect.Effect<void, LockError> =>
  Effect.tap(takeAtOnce(claim, (index) => line.inUse.has(index)), () => Effect.sync(() => use(line, claim)))

const problemOf = (key: string, { limit, permits = 1 }: Amount, plan: options.Plan | string): string | undefined => {
  if (!Number.isInteger(limit) || limit < 1 || limit > mostPermits) {
    return `the limit must be a whole number from 1 to ${mostPermits}`
  }
  if (!Number.isInteger(permits) || permits < 1 || permits > limit) {
    return "the number of permits must be a whole number from 1 to the limit"
  }
  return options.keyProblem(key) ?? (typeof plan === "string" ? plan : undefined)
}

/** How many permits of this key the sections around the caller use. */
const inUseBy = (section: leases.Lease | undefined, line: PermitLine): number => {
  if (section === undefined) return 0
  const inUse = new Set(line.inUse.values())
  let count = 0
  for (let at = held(section); at !== undefined; at = held(at.outer)) if (inUse.has(at)) count++
  return count
}

/** Times that are written differently may be the same. */
const timeOf = (input: options.Options["renew"]): string =>
  input === undefined || typeof input === "boolean"
    ? String(input)
    : Option.match(Duration.fromInput(input), {
      onNone: () => "invalid",
      onSome: (time) => `${Duration.toMillis(time)}`
    })

const kindOf = (limit: number, options: PermitOptions | undefined): string => {
  if (options === undefined) return `${limit}`
  const { maxHold, owner, renew, ttl } = options
  return JSON.stringify([limit, timeOf(ttl), timeOf(renew), timeOf(maxHold), owner])
}

export const withPermit = <A, E, R, X>(
  lock: { readonly withLock: WithLock },
  key: string,
  amount: Amount,
  program: ProgramOf<Permit, A, E, R>,
  given: PermitOptions | undefined,
  unavailable: (error: LockUnavailable) => Exit.Exit<A, X>
): Effect.Effect<A, E | X | Exclude<LockError, LockUnavailable>, Exclude<R, Scope.Scope>> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.contextWith((context: Context.Context<never>) => {
      const plan = options.make({ timeout: given?.timeout }, {}, "")
      const problem = problemOf(key, amount, plan)
      if (problem !== undefined) return Effect.fail(new InvalidLockRequest({ key: String(key), problem }))
      const wrong = programProblem(key, program)
      if (wrong !== undefined) return Effect.fail(wrong)
      const timeout = typeof plan === "string" ? 0 : plan.timeout
      const { limit, permits = 1 } = amount
      const outer = Context.get(context, CurrentSection)
      const line = lineOf(lock, key)
      if (inUseBy(outer, line) + permits > limit) return unavailable(new LockUnavailable({ key, reason: "reentry" }))
      line.claims++
      const claim: Claim = {
        withLock: lock.withLock,
        key,
        limit,
        permits,
        options: given,
        kind: kindOf(limit, given),
        context: outer === undefined ? context : Context.add(context, CurrentSection, undefined),
        got: [],
        settle: () => {}
      }
      const left = Effect.suspend(() => {
        const parts = quit(line, claim)
        forget(lock, key, line)
        return ended(parts)
      })
      return Effect.matchCauseEffect(restore(take(line, claim, timeout)), {
        onFailure: (cause) => Effect.andThen(left, Effect.failCause(cause)),
        onSuccess: (refusal): Effect.Effect<A, E | X | InvalidLockRequest | LockLost, Exclude<R, Scope.Scope>> => {
          if (refusal === undefined) {
            return runPermits(line, claim, program, restore, outer, () => forget(lock, key, line))
          }
          // The answer comes in time, also where a release does not.
          return refusal.reason === "timeout"
            ? Effect.andThen(Effect.forkDetach(left, { startImmediately: true }), unavailable(refusal))
            : Effect.andThen(left, unavailable(refusal))
        }
      })
    })
  )

/** Errors about the locks that permits are made of are about the key that was asked for. */
const aboutKey = <E>(key: string, error: E): E | LockLost | InvalidLockRequest => {
  if (error instanceof LockLost) return lossAbout(key, error)
  return error instanceof InvalidLockRequest ? new InvalidLockRequest({ key, problem: error.problem }) : error
}

/** The section of the program. The permits are released when it has ended, or pass to others of this process. */
const runPermits = <A, E, R>(
  line: PermitLine,
  { got, key }: Claim,
  program: ProgramOf<Permit, A, E, R>,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>,
  outer: leases.Lease | undefined,
  done: () => void
): Effect.Effect<A, E | InvalidLockRequest | LockLost, Exclude<R, Scope.Scope>> => {
  const permits = got.toSorted((a, b) => a.index - b.index)
  const together = new Together(() => {
    for (const { index } of permits) pass(line, index)
  })
  for (const { part } of permits) together.add(part)
  const leases = permits.flatMap(({ part }) => part.lease ?? [])
  const work = programOf(key, program, () => permitOf(key, permits[0]?.index ?? 0, leases))
  return runTogether(together, work, outer, restore).pipe(
    Effect.mapError((error) =>
      error instanceof LockLost && permits.some(({ part }) => part.key === error.key) ? lossAbout(key, error) : error
    ),
    Effect.onExit(() => Effect.sync(done))
  )
}
