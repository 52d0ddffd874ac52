/**
 * Several keys under one program. They are asked for at once. If one is held, those before it in the order are kept, those
 * after it are released, and the wait goes on in the order, which is the same for all: so no two callers wait for
 * each other.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { Buffer } from "node:buffer"
import type { Lease } from "../Lease.ts"
import { InvalidLockRequest, type LockError, type LockLost, LockUnavailable } from "../LockError.ts"
import * as options from "./options.ts"
import {
  endAll,
  errorIn,
  failureOf,
  type Part,
  refusalOf,
  runTogether,
  start,
  Together,
  type WithLock
} from "./part.ts"
import { CurrentSection, type ProgramOf, programOf, programProblem } from "./section.ts"

/** How several keys are taken and kept. They always stand in line. */
export type LocksOptions = Omit<options.Options, "retry" | "linger">

/** The keys in the order of their bytes in UTF-8, each once. */
export const inOrder = (keys: ReadonlyArray<string>): ReadonlyArray<string> =>
  [...new Set(keys)]
    .map((key) => ({ key, bytes: Buffer.from(key) }))
    .toSorted((a, b) => Buffer.compare(a.bytes, b.bytes))
    .map(({ key }) => key)

/** What is asked for, and what is there of it. */
interface Taking {
  readonly withLock: WithLock
  readonly keys: ReadonlyArray<string>
  readonly options: LocksOptions | undefined
  readonly timeout: number
  readonly context: Context.Context<never>
  readonly together: Together
}

/** Nothing that is configured for single locks reaches the parts. */
const ask = ({ context, options, together, withLock }: Taking, key: string, timeout: number): Part =>
  together.add(start(withLock, key, {
    ...options,
    timeout: timeout === Number.POSITIVE_INFINITY ? "Infinity" : timeout,
    retry: false,
    linger: 0,
    minHold: options?.minHold ?? 0
  }, context))

/** Waits until all that were asked for are held, or one is lost. Fails as the first that is not, and ends those from it on. */
const held = (together: Together): Effect.Effect<void, LockError> =>
  Effect.callback((resume) => {
    let count = 0
    const leave = () => {
      together.onChange = () => {}
    }
    const answer = (): Effect.Effect<void, LockError> | undefined => {
      for (; together.firstLost === undefined; count++) {
        const part = together.parts[count]
        if (part === undefined) return Effect.void
        if (part.lease !== undefined) continue
        const refusal = refusalOf(part)
        if (refusal !== undefined) together.endFrom(count)
        return refusal
      }
      return Effect.void
    }
    const look = () => {
      const known = answer()
      if (known === undefined) return
      leave()
      resume(known)
    }
    together.onChange = look
    look()
    return Effect.sync(leave)
  })

/** Asks for all at once. */
const takeAtOnce = (taking: Taking): Effect.Effect<void, LockError> =>
  Effect.suspend(() => {
    for (const key of taking.keys) {
      const error = errorIn(failureOf(ask(taking, key, 0)))
      // What is invalid is known in the same step.
      if (error instanceof InvalidLockRequest) return Effect.fail(error)
    }
    return held(taking.together)
  })

/** Waits for the rest in the order, one by one. */
const takeInOrder = (taking: Taking, until: number): Effect.Effect<void, LockError> =>
  Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const { keys, together } = taking
    while (together.parts.length < keys.length && together.firstLost === undefined) {
      ask(taking, keys[together.parts.length] ?? "", Math.max(until - now(clock), 0))
      yield* held(together)
    }
  })

const now = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

/** Answers with the refusal, if there is one. */
const takeAll = (taking: Taking): Effect.Effect<LockUnavailable | void, Exclude<LockError, LockUnavailable>> => {
  const { context, keys, timeout, together } = taking
  const until = now(Context.get(context, Clock.Clock)) + timeout
  const answered = Effect.catchTag(
    takeAtOnce(taking),
    "LockUnavailable",
    (refusal) =>
      timeout === 0 || refusal.reason !== "held"
        ? Effect.succeed(refusal)
        : Effect.catchTag(takeInOrder(taking, until), "LockUnavailable", (late) => Effect.succeed(late))
  )
  return timeout === 0 || timeout === Number.POSITIVE_INFINITY ? answered : Effect.timeoutOrElse(answered, {
    duration: timeout,
    orElse: () => {
      const missing = together.parts.find(({ lease }) => lease === undefined)
      return Effect.succeed(new LockUnavailable({ key: missing?.key ?? keys[0] ?? "", reason: "timeout" }))
    }
  })
}

const problemOf = (keys: unknown, program: unknown, plan: options.Plan | string): InvalidLockRequest | undefined => {
  if (!Array.isArray(keys)) return new InvalidLockRequest({ key: "", problem: "the keys must be an array" })
  for (const key of keys) {
    const problem = options.keyProblem(key) ?? (typeof plan === "string" ? plan : undefined)
    if (problem !== undefined) return new InvalidLockRequest({ key: String(key), problem })
  }
  return programProblem(String(keys[0] ?? ""), program)
}

export const withLocks = <A, E, R, X>(
  withLock: WithLock,
  keys: ReadonlyArray<string>,
  program: ProgramOf<ReadonlyArray<Lease>, A, E, R>,
  given: LocksOptions | undefined,
  unavailable: (error: LockUnavailable) => Exit.Exit<A, X>
): Effect.Effect<A, E | X | Exclude<LockError, LockUnavailable>, Exclude<R, Scope.Scope>> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.contextWith((context: Context.Context<never>) => {
      const outer = Context.get(context, CurrentSection)
      const plan = options.make({ timeout: given?.timeout }, {}, "")
      const problem = problemOf(keys, program, plan)
      if (problem !== undefined) return Effect.fail(problem)
      const together = new Together()
      const work = programOf(keys[0] ?? "", program, () => keys.flatMap((key) => leaseOf(together, key)))
      if (keys.length === 0) return restore(Effect.scoped(work))
      const timeout = typeof plan === "string" ? 0 : plan.timeout
      const take = takeAll({ withLock, together, options: given, context, timeout, keys: inOrder(keys) })
      return Effect.matchCauseEffect(restore(take), {
        onFailure: (cause) => Effect.andThen(endAll(together), Effect.failCause(cause)),
        onSuccess: (refusal): Effect.Effect<A, E | X | InvalidLockRequest | LockLost, Exclude<R, Scope.Scope>> => {
          if (refusal === undefined) return runTogether(together, work, outer, restore)
          const ends = endAll(together)
          // The answer comes in time, also where a release does not.
          return refusal.reason === "timeout"
            ? Effect.andThen(Effect.forkDetach(ends, { startImmediately: true }), unavailable(refusal))
            : Effect.andThen(ends, unavailable(refusal))
        }
      })
    })
  )

const leaseOf = ({ parts }: Together, key: string): ReadonlyArray<Lease> =>
  parts.flatMap((part) => part.key === key && part.lease !== undefined ? [part.lease] : [])
