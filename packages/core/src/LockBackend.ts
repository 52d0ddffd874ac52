/**
 * The contract of a backend: a few verbs over one truth. Core builds everything else on them (the local line, the
 * deadline, the watchdog, the duty to release), so a backend is small. The laws that a backend keeps are in
 * `LockBackend` below, and `@dlock/core/testing` tests each of them.
 *
 * Every time in this module is a `number` of milliseconds, and every moment is milliseconds of the monotonic time of
 * Effect's `Clock`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type { LockBackendError, LossReason } from "./LockError.ts"

/**
 * One request to hold a key. It is a plain object, and the same one is passed to every verb of the request, so that a
 * backend may keep what it knows of it by identity.
 *
 * @category models
 * @since 0.1.0
 */
export interface LockRequest {
  /** What is locked: well-formed text, not empty, already passed by `LockBackend.check`. */
  readonly key: string
  /** Unique to this request: `label/uuid`. A later request, also of the same caller, has another one. */
  readonly owner: string
  /**
   * How long the backend is asked to keep the grant without renewal, in milliseconds. Where grants end by themselves, core
   * lengthens it for the last renewal of a key that stays taken for its `minHold` after the layer has closed, so a backend
   * reads it when it writes a renewal.
   */
  readonly ttl: number
  /**
   * How many more tokens than one the process would like, because others in it wait for the same key. Core keeps it
   * current, so a backend reads it when it writes the request. A backend that cannot reserve tokens ignores it.
   */
  readonly spare: number
  /**
   * The process keeps the key after its last use until it is told that another process waits. A backend for which it
   * is too expensive to listen for waiters of every grant listens from the first moment of this one.
   */
  readonly lingers?: boolean | undefined
  /**
   * The backend calls this when it learns that the grant ended though it was not released. Synchronous, idempotent, does
   * not throw; may be called before the grant is answered and after the release.
   */
  readonly onLost: (reason: LossReason) => void
  /**
   * The backend calls this when it learns that another process waits for the key, if `LockBackend.tellsWanted`.
   * Synchronous, idempotent, does not throw.
   */
  readonly onWanted: () => void
  /**
   * The backend calls this with the owner that holds the key, where an answer that the key is not free tells it anyway.
   * Synchronous, does not throw.
   */
  readonly onHeld?: ((owner: string) => void) | undefined
}

/**
 * Fencing tokens that were given to one grant: `first`, `first + 1`, .. `first + spare`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tokens {
  /** Greater than every token that was given for the key before. */
  readonly first: bigint
  /** How many more tokens than one; 0 where the backend cannot reserve any. */
  readonly spare: number
}

/**
 * How long a grant is good for: `ttl` milliseconds from `validFrom`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Validity {
  /**
   * Monotonic time read just before sending the request from which the server counts. A grant on a session that was
   * refreshed a while ago has the time of that refresh.
   */
  readonly validFrom: number
  /** What the server really gave, which may be more or less than was asked for. */
  readonly ttl: number
  /** Where the verb reads or reserves tokens. */
  readonly tokens?: Tokens | undefined
}

/**
 * A key that was given to us.
 *
 * @category models
 * @since 0.1.0
 */
export interface Grant extends Validity {
  readonly tokens: Tokens
}

/**
 * What a renewal asks for besides the renewal itself.
 *
 * @category models
 * @since 0.1.0
 */
export interface Renewal {
  /** The answer is asked for now, also where one session carries many grants and was refreshed a moment ago. */
  readonly fresh?: boolean | undefined
  /**
   * New tokens, one and this many more, greater than those of the grant. Where the backend has none to give, the answer
   * has no `tokens`, and core releases and asks anew.
   */
  readonly spare?: number | undefined
}

/**
 * What became of a release. `released`: the grant was ours until now. `gone`: the backend did not have us as holder or
 * waiter (any more). `unknown`: the driver may have sent the release twice or does not tell, so nothing follows from
 * the answer, but nothing of the request is held or in line.
 *
 * @category models
 * @since 0.1.0
 */
export type Released = "released" | "gone" | "unknown"

/**
 * The holder of a key and its waiters, as the server tells them. What a server cannot tell is absent.
 *
 * @category models
 * @since 0.1.0
 */
export interface Inspection {
  readonly holder: Option.Option<{
    /** `label/uuid`, as in `Lease.owner`. */
    readonly owner?: string | undefined
    /** The greatest fencing token that was given to this grant. */
    readonly token?: bigint | undefined
    /** Until the grant ends by the server's clock, in milliseconds. */
    readonly remaining?: number | undefined
  }>
  /** The owners in the server's line, first in line first; or their number, where that is all the server tells. */
  readonly waiting: ReadonlyArray<string> | number
}

/**
 * The backend of a `Lock`: where the truth is stored.
 *
 * **What core guarantees**
 *
 * `acquire` or `tryAcquire` is called once per request. Renewals of one request never overlap. `release` is called
 * after `acquire` or `tryAcquire` has ended or been interrupted, unless it answered that the key is not ours, and after
 * a renewal in flight was answered or given five seconds; it is called again until it is answered, and no verb is called
 * after that.
 *
 * **Laws**
 *
 * 1. Two owners never hold a key at the same time by the backend's own clock.
 * 2. Resend-safe on the wire: a request that the driver sends twice, or that arrives again, gets its own grant and not a
 *    refusal.
 * 3. `renew` never re-creates: a grant that ended stays ended.
 * 4. `release` is the owner's only, a no-op for an owner that was never granted, and leaves the line.
 * 5. After `release` nothing of the request stays held or in line, even if an earlier message of the request reaches the
 *    server after the release.
 * 6. First come, first served in turns: `acquire` waits in the order of arrival among processes, without herd and
 *    without polling beyond one small refresh per process and key; a process may serve its own line for a turn.
 *    `tryAcquire` never overtakes a live line.
 * 7. Fencing tokens grow with every grant of a key, and tokens reserved by a grant lie below those of every later grant.
 * 8. A dead holder's key is free within its ttl of the last renewal, plus the server's granularity.
 * 9. `onLost` is called where the backend can know of a loss.
 * 10. Nothing hangs and nothing spins: an unreachable server is a `LockBackendError` within the command timeout, every
 *     wait has a limit, and every loop that asks a server has a limit and a pause.
 * 11. No two keys share anything, whatever they are made of.
 * 12. One truth: a backend that finds itself connected to a server that does not replicate the one that holds its
 *     grants ends those grants or refuses the connection; after a promotion within one system every grant is renewed
 *     fresh before anything is granted.
 * 13. Replies that pass by themselves (loading, read-only during a fail-over, too many connections, busy, no quorum) are
 *     `Unreachable` after the command timeout, for every verb, and a waiter outlasts a lack of capacity until its own
 *     timeout.
 *
 * @category services
 * @since 0.1.0
 */
export class LockBackend extends Context.Service<LockBackend, {
  /** The name in errors, spans and metrics: `redis`, `etcd`, ... */
  readonly name: string
  /**
   * What frees the key of a holder that died. `ttl`: each grant ends by itself at its ttl; a release that fails is tried
   * again until then. `session`: a server-side session that carries the grant and lives on after a failed release, which
   * is therefore tried again until it is answered; it is answered with `gone` once the session is gone.
   */
  readonly freedBy: "ttl" | "session"
  /** Whether `LockRequest.onWanted` is called for a held key. Where it is not, a key that is not in use is kept for a turn at most. */
  readonly tellsWanted: boolean
  /** A sentence that says what is wrong with a key or a ttl, or `undefined`. Asked before anything is sent. */
  readonly check: (key: string, ttl: number) => string | undefined
  /** One attempt that never waits for the holder; `none` when another owner holds the key or stands in line. */
  readonly tryAcquire: (request: LockRequest) => Effect.Effect<Option.Option<Grant>, LockBackendError>
  /** Waits its turn in the backend's line. Interruptible at once; core then calls `release`. */
  readonly acquire: (request: LockRequest) => Effect.Effect<Grant, LockBackendError>
  /**
   * Prolongs the grant; `none`: the backend no longer has us as holder. Where one session carries many grants the answer
   * may be that of its latest refresh, unless it is asked to be `fresh`.
   */
  readonly renew: (request: LockRequest, renewal: Renewal) => Effect.Effect<Option.Option<Validity>, LockBackendError>
  /** Releases what the request holds, and leaves the line. */
  readonly release: (request: LockRequest) => Effect.Effect<Released, LockBackendError>
  /** The holder of the key and its waiters. Reads only, in at most two round trips. */
  readonly inspect: (key: string) => Effect.Effect<Inspection, LockBackendError>
  /**
   * Ends the hold of exactly this owner; `false`: it does not hold the key. The holder learns of it as of any loss
   * (`taken`). Fails with `Unsupported` where it cannot be exact.
   */
  readonly revoke: (key: string, owner: string) => Effect.Effect<boolean, LockBackendError>
  /** One round trip that fails when locks cannot be taken now. */
  readonly ping: Effect.Effect<void, LockBackendError>
}>()("@dlock/core/LockBackend") {}
