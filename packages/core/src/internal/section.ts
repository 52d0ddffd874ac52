/**
 * What runs under a lease, and which sections a fiber is in.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import { InvalidLockRequest } from "../LockError.ts"
import type { Lease } from "./lease.ts"

/** Work under a lease, or under several. */
export type ProgramOf<L, A, E, R> = Effect.Effect<A, E, R> | ((lease: L) => Effect.Effect<A, E, R>)

/** The lease of the section that a fiber runs in; the sections around it are its `outer` ones. */
export const CurrentSection = Context.Reference<Lease | undefined>("@dlock/core/CurrentSection", {
  defaultValue: () => undefined
})

/** The innermost that still holds its key. A fiber may outlive the sections that it was started in. */
export const held = (section: Lease | undefined): Lease | undefined => {
  let at = section
  while (at !== undefined && at.state !== "held") at = at.outer
  return at
}

/** One section inside another, for work that is under several leases at once. */
export const nested = (sections: ReadonlyArray<Lease>, outer: Lease | undefined): Lease | undefined => {
  let inner = held(outer)
  for (const section of sections) {
    section.outer = inner
    inner = section
  }
  return inner
}

const notAnEffect = (key: string): InvalidLockRequest =>
  new InvalidLockRequest({
    key,
    problem: "the program must be an effect or return one (for async functions there is @dlock/core/promise)"
  })

/** What is wrong with a program that cannot even be started, a promise for example. */
export const programProblem = (key: string, program: unknown): InvalidLockRequest | undefined =>
  typeof program === "function" || Effect.isEffect(program) ? undefined : notAnEffect(key)

/** What runs in the section. What is no effect is an error of the caller, not a defect. */
export const programOf = <L, A, E, R>(
  key: string,
  program: ProgramOf<L, A, E, R>,
  lease: () => L
): Effect.Effect<A, E | InvalidLockRequest, R> =>
  Effect.isEffect(program) ? program : Effect.suspend((): Effect.Effect<A, E | InvalidLockRequest, R> => {
    const made: unknown = program(lease())
    if (isEffect<A, E, R>(made)) return made
    // A promise that rejects and that is never looked at would end the process before this error is read.
    if (made instanceof Promise) made.catch(() => {})
    return Effect.fail(notAnEffect(key))
  })

const isEffect = <A, E, R>(made: unknown): made is Effect.Effect<A, E, R> => Effect.isEffect(made)

/** The program with its result as `some`; what is no effect is left as it is. */
export const optional = <L, A, E, R>(
  key: string,
  program: ProgramOf<L, A, E, R>
): ProgramOf<L, Option.Option<A>, E | InvalidLockRequest, R> =>
  Effect.isEffect(program) || typeof program === "function"
    ? (lease) => Effect.asSome(programOf(key, program, () => lease))
    : program
