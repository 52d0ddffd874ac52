/**
 * The errors of a lock: few, typed, each for one cause, each with a sentence for people.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * Why a key could not be had: `held` by another owner (a single attempt), `timeout` (the longest wait in line is
 * over), or `reentry` (asked for inside the section that holds it).
 *
 * @category models
 * @since 0.1.0
 */
export const UnavailableReason = Schema.Literals(["held", "timeout", "reentry"])

/**
 * @category models
 * @since 0.1.0
 */
export type UnavailableReason = typeof UnavailableReason.Type

const unavailableText: Record<UnavailableReason, string> = {
  held: "another owner holds it",
  timeout: "the wait for it timed out",
  reentry: "this section already holds it, and locks are not reentrant"
}

/**
 * The lock is not to be had now. Nothing is held and nothing is queued.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockUnavailable extends Schema.TaggedError<LockUnavailable>()("LockUnavailable", {
  key: Schema.String,
  reason: UnavailableReason
}) {
  override get message(): string {
    return `Lock "${this.key}" is unavailable: ${unavailableText[this.reason]}`
  }
}

/**
 * Why a lease ended while it was still wanted: `expired` (the local deadline passed without a renewal), `taken` (the
 * backend no longer has this owner as holder), `session` (the server-side session that carried the lease ended) or
 * `maxHold` (held for as long as the caller allowed).
 *
 * @category models
 * @since 0.1.0
 */
export const LossReason = Schema.Literals(["expired", "taken", "session", "maxHold"])

/**
 * @category models
 * @since 0.1.0
 */
export type LossReason = typeof LossReason.Type

const lossText: Record<LossReason, string> = {
  expired: "its time limit passed before a renewal was answered",
  taken: "the backend no longer has it as holder",
  session: "the session that carried it ended",
  maxHold: "it was held for as long as maxHold allows"
}

/**
 * The lease ended while the program still wanted it. Another owner may hold the key already; the program was
 * interrupted.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockLost extends Schema.TaggedError<LockLost>()("LockLost", {
  key: Schema.String,
  owner: Schema.String,
  fencingToken: Schema.BigInt,
  reason: LossReason
}) {
  override get message(): string {
    return `Lock "${this.key}" was lost (token ${this.fencingToken}): ${lossText[this.reason]}`
  }

  /** The error as plain JSON; the token is text, because `JSON.stringify` throws on a bigint. */
  override toJSON(): unknown {
    return {
      _tag: this._tag,
      key: this.key,
      owner: this.owner,
      fencingToken: this.fencingToken.toString(),
      reason: this.reason,
      message: this.message
    }
  }
}

/**
 * Why a backend could not do what it was asked: `Unreachable` (no connection), `Timeout` (no answer in time, the
 * outcome is unknown), `Rejected` (the server refused: a read-only replica, out of memory, a limit), `Unauthorized`
 * (wrong or missing credentials or rights), `Unsupported` (a server that can not carry locks: too old, a proxy, a
 * cluster mode), `Protocol` (an answer that makes no sense) or `Options` (what the backend was given makes no sense;
 * nothing was sent).
 *
 * @category models
 * @since 0.1.0
 */
export const BackendReason = Schema.Literals([
  "Unreachable",
  "Timeout",
  "Rejected",
  "Unauthorized",
  "Unsupported",
  "Protocol",
  "Options"
])

/**
 * @category models
 * @since 0.1.0
 */
export type BackendReason = typeof BackendReason.Type

const backendText: Record<BackendReason, string> = {
  Unreachable: "the server can not be reached",
  Timeout: "the server did not answer in time",
  Rejected: "the server refused",
  Unauthorized: "the server did not accept the credentials",
  Unsupported: "the server can not carry locks",
  Protocol: "the server's answer makes no sense",
  Options: "the options make no sense"
}

/**
 * The backend failed. `operation` is the verb (`acquire`, `renew`, `release`, `connect`, ...); `detail` is a sentence
 * for people without secrets; `cause` is the driver's error, for programs.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockBackendError extends Schema.TaggedError<LockBackendError>()("LockBackendError", {
  backend: Schema.String,
  operation: Schema.String,
  reason: BackendReason,
  detail: Schema.optionalKey(Schema.String),
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    const detail = this.detail === undefined ? "" : ` (${this.detail})`
    return `${this.backend} could not ${this.operation}: ${backendText[this.reason]}${detail}`
  }
}

/**
 * The request makes no sense (an empty or over-long key, a ttl below what the backend can do, ...). Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidLockRequest extends Schema.TaggedError<InvalidLockRequest>()("InvalidLockRequest", {
  key: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    const key = this.key.length > 100 ? `${this.key.slice(0, 100)}...` : this.key
    return `Invalid request for lock "${key}": ${this.problem}`
  }
}

/**
 * Everything that `withLock` can add to the errors of its program.
 *
 * @category errors
 * @since 0.1.0
 */
export type LockError = LockUnavailable | LockLost | LockBackendError | InvalidLockRequest
