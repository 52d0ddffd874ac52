/**
 * One holding of a key, with its time limit.
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
  /** Who holds it: the label and a UUID, unique to this holding. */
  readonly owner: string
  /** The name of the backend that stores it. */
  readonly backend: string
  /** Grows with every grant of the key: give it to the resource, and let the resource refuse smaller ones. */
  readonly fencingToken: bigint
  /** Fails as soon as the lease is lost; never completes after a release. */
  readonly lost: Effect.Effect<never, LockLost>
  /** What is known locally: not released, not lost, the deadline not passed. Asks nobody. */
  readonly isHeld: Effect.Effect<boolean>
  /** The time to the local deadline; zero when it is not held. */
  readonly remaining: Effect.Effect<Duration.Duration>
  /** Asks the backend for another ttl now. */
  readonly renew: Effect.Effect<void, LockLost | LockBackendError>
  /** Gives the key back early. Idempotent and uninterruptible. */
  readonly release: Effect.Effect<void, LockBackendError>
}
