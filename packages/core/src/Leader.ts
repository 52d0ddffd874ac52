/**
 * Leaders: of all programs that ask, one leads, and another takes over when it ends, loses its lease or dies.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as internal from "./internal/leader.ts"
import type { Lease } from "./Lease.ts"
import { Lock } from "./Lock.ts"
import type { LockError } from "./LockError.ts"

/**
 * How a leader is elected: `ttl`, `renew`, `maxHold` and `owner` as in `Lock.Options`, and `rejoin`.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = internal.LeaderOptions

/**
 * A candidate that stands in line until it leads, and again whenever it no longer does, until its scope closes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Leader {
  /** What it is elected for. */
  readonly key: string
  /** Whether it leads now, as far as is known locally. */
  readonly isLeader: Effect.Effect<boolean>
  /**
   * The lease while it leads, `none` while it does not; first what is now. It fails when the candidate cannot go on, and
   * ends with the candidate's scope.
   */
  readonly changes: Stream.Stream<Option.Option<Lease>, LockError>
  /**
   * Runs the program while it leads. If it stops leading before the program has ended, the program is interrupted, and
   * started anew when it leads again. Leadership does not end with the program.
   */
  readonly run: <A, E, R>(program: Lock.Program<A, E, R>) => Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope>>
  /** Gives up leadership, and goes to the end of the line. Does nothing while it does not lead. */
  readonly resign: Effect.Effect<void>
}

/**
 * Waits to be elected, and runs `program` while it leads. When the lease is lost or the backend fails, `program` is
 * interrupted, and started anew when it is elected again. When `program` ends, leadership ends, and its result is the
 * result.
 *
 * Invalid options, and asking for a key inside its own section, fail at once.
 *
 * @category combinators
 * @since 0.1.0
 */
export const run = <A, E, R>(
  key: string,
  program: Lock.Program<A, E, R>,
  options?: Options
): Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope> | Lock> =>
  Effect.flatMap(Lock, (lock) => internal.run(lock, key, program, options))

/**
 * A candidate for leadership until the scope closes, which hands it over.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (key: string, options?: Options): Effect.Effect<Leader, LockError, Scope.Scope | Lock> =>
  Effect.flatMap(Lock, (lock) => internal.make(lock, key, options))
