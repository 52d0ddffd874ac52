/**
 * What a backend implements: five verbs over one truth. Core builds everything else on them (the local line, the
 * deadline, the watchdog, the duty to release), so a backend is small. The laws it must keep are in
 * `LockBackend` below, and `@dlock/core/testing` tests each of them.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type { LockBackendError, LossReason } from "./LockError.ts"

/**
 * One attempt to hold a key. The same object is passed to every verb of the attempt, so that a backend may keep what
 * it knows of the attempt by identity. Its fields may be accessors, which a copy by `...` does not have.
 *
 * @category models
 * @since 0.1.0
 */
export interface LockRequest {
  /** What is locked: well-formed text, not empty, already passed by `LockBackend.check`. */
  readonly key: string
  /** Unique to this attempt: `label/uuid`. A later attempt, also of the same caller, has another one. */
  readonly owner: string
  /** How long the backend is asked to keep the lease without renewal. */
  readonly ttl: Duration.Duration
  /**
   * The backend calls this when it learns that the lease ended though nobody released it. Synchronous, idempotent,
   * does not throw; may be called before the grant is given out and after the release.
   */
  readonly onLost: (reason: LossReason) => void
}

/**
 * How long a lease is good for: `ttl` from `validFrom`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Validity {
  /**
   * `Clock.monotonicTimeNanos` read just before sending the request from which the server counts. A lease put on a
   * session that was refreshed a while ago has the time of that refresh.
   */
  readonly validFrom: bigint
  /** What the server really gave, which may be more or less than was asked for. */
  readonly ttl: Duration.Duration
  /** The token as the server has it now, where the verb reads it. */
  readonly fencingToken?: bigint | undefined
}

/**
 * A key that was given to us.
 *
 * @category models
 * @since 0.1.0
 */
export interface Grant extends Validity {
  /** Greater than the token of every earlier grant of the key. */
  readonly fencingToken: bigint
}

/**
 * The backend of a `Lock`: where the truth is stored.
 *
 * **Laws**
 *
 * 1. Two owners never hold a key at the same time by the backend's own clock.
 * 2. The same owner asking again gets its own grant back.
 * 3. `renew` never re-creates: a lease that ended stays ended.
 * 4. `release` is the owner's only, idempotent, a no-op for an owner that was never granted, and leaves the line.
 * 5. After `release` nothing of the attempt stays held or queued, even if an earlier request of the attempt reaches
 *    the server after the release, and an attempt that was released gets nothing any more. Core calls `release` after
 *    every `acquire` and `tryAcquire` that was interrupted or failed.
 * 6. `acquire` is first come, first served among processes, without herd and without polling beyond one small
 *    refresh per process and key. `tryAcquire` never overtakes a live line.
 * 7. Fencing tokens grow with every grant of a key.
 * 8. A dead holder's key is free within its ttl of the last renewal, plus the server's granularity.
 * 9. `onLost` is called where the backend can know of a loss.
 * 10. Nothing hangs: an unreachable server is a `LockBackendError` within the command timeout.
 *
 * @category services
 * @since 0.1.0
 */
export class LockBackend extends Context.Service<LockBackend, {
  /** The name in errors, spans and metrics: `redis`, `etcd`, ... */
  readonly name: string
  /**
   * What a lease lives on. `lease`: a lease of its own, which ends by itself at its ttl; a release that fails is tried
   * again until then. `session`: a server-side session that lives on after the lease; a release that fails is tried
   * again until it is answered, and is answered with `false` once the session is gone.
   */
  readonly tenure: "lease" | "session"
  /** A sentence that says what is wrong with a key or a ttl, or `undefined`. Asked before anything is sent. */
  readonly check: (key: string, ttl: Duration.Duration) => string | undefined
  /** One attempt that never waits for the holder; `none` when another owner holds the key or stands in line. */
  readonly tryAcquire: (request: LockRequest) => Effect.Effect<Option.Option<Grant>, LockBackendError>
  /** Waits its turn in the backend's line. Interruptible at once; the caller then calls `release`. */
  readonly acquire: (request: LockRequest) => Effect.Effect<Grant, LockBackendError>
  /**
   * Asks the backend now; `none`: it no longer has us as holder. Where one session carries many leases, the answer may
   * be that of its latest refresh; one from before the machine slept confirms nothing, and is asked for again.
   */
  readonly renew: (request: LockRequest) => Effect.Effect<Option.Option<Validity>, LockBackendError>
  /** Gives back and leaves the line; `false`: it was not ours (any more). */
  readonly release: (request: LockRequest) => Effect.Effect<boolean, LockBackendError>
}>()("@dlock/core/LockBackend") {}
