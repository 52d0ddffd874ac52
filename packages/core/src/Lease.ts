/**
 * What one section or one scope works under: a key that is held, with a time limit and a fencing token.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { LockBackendError, LockLost } from "./LockError.ts"

/**
 * A key that is held, until it is released or lost.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lease {
  /** What is locked. */
  readonly key: string
  /** The owner: the label and a UUID. Leases that the process passes on from one to the next have the same owner. */
  readonly owner: string
  /** The name of the backend that stores it. */
  readonly backend: string
  /** Grows with every lease of the key: give it to the resource, and let the resource refuse smaller ones. */
  readonly fencingToken: bigint
  /** Fails as soon as the lease is lost; never completes after a release. */
  readonly lost: Effect.Effect<never, LockLost>
  /** What is known locally: not released, not lost, the deadline not passed. Sends nothing. */
  readonly isHeld: Effect.Effect<boolean>
  /** The time to the local deadline; zero when it is not held. */
  readonly remaining: Effect.Effect<Duration.Duration>
  /** Asks the backend for another ttl now. Fails with `LockLost` when it is not held any more (`closed` after a release). */
  readonly renew: Effect.Effect<void, LockLost | LockBackendError>
  /**
   * Runs an effect while the lease is held. When the lease is lost, the effect is interrupted and the result is
   * `LockLost`; so it is at once when the lease is not held any more (`closed` after a release).
   */
  readonly guard: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | LockLost, R>
  /**
   * Releases the key early; idempotent and uninterruptible. Fails with `LockLost` (`taken`) when the backend answers that
   * the key was not ours any more, although the deadline had not passed.
   */
  readonly release: Effect.Effect<void, LockLost | LockBackendError>
}
