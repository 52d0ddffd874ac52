/**
 * The errors of a lock: few, typed, each for one cause, each with a sentence for people.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * Why a key is unavailable: `held` by another owner (a single attempt), `timeout` (the longest wait in line is
 * over), or `reentry` (asked for inside the section that holds it).
 *
 * @category models
 * @since 0.1.0
 */
export const UnavailableReason = Schema.Literals(["held", "timeout", "reentry"])

/**
 * Why a key is unavailable.
 *
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
 * The lock is unavailable now. Nothing is held, and nothing is in line. `holder` is the label of the owner that holds it,
 * as the backend last told; absent where its answers do not tell.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockUnavailable extends Schema.TaggedError<LockUnavailable>()("LockUnavailable", {
  key: Schema.String,
  reason: UnavailableReason,
  holder: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    const held = this.reason === "held" ? "" : "held "
    const by = this.holder === undefined ? "" : ` (${held}by ${this.holder})`
    return `Lock "${this.key}" is unavailable: ${unavailableText[this.reason]}${by}`
  }
}

/**
 * Why a lease ended while it was still wanted: `expired` (the local deadline passed without a renewal), `taken` (the
 * backend no longer has this owner as holder), `session` (the server-side session that carried the lease ended),
 * `maxHold` (held for as long as the caller allowed) or `closed` (it was released, or the layer was closed).
 *
 * @category models
 * @since 0.1.0
 */
export const LossReason = Schema.Literals(["expired", "taken", "session", "maxHold", "closed"])

/**
 * Why a lease ended.
 *
 * @category models
 * @since 0.1.0
 */
export type LossReason = typeof LossReason.Type

const lossText: Record<LossReason, string> = {
  expired: "it was not renewed before its time limit passed",
  taken: "the backend no longer has it as holder",
  session: "the session that carried it ended",
  maxHold: "it was held for as long as maxHold allows",
  closed: "it was released, or the Lock layer was closed"
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
 * (wrong or missing credentials or rights), `Unsupported` (a server that cannot carry locks: too old, a proxy, a
 * cluster mode), `Protocol` (a malformed answer), `Options` (invalid options of the backend; nothing was sent) or
 * `Closed` (the Lock layer is closed, and stays so).
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
  "Options",
  "Closed"
])

/**
 * Why a backend failed.
 *
 * @category models
 * @since 0.1.0
 */
export type BackendReason = typeof BackendReason.Type

const backendText: Record<BackendReason, string> = {
  Unreachable: "the server is unreachable",
  Timeout: "the server did not answer in time",
  Rejected: "the server refused",
  Unauthorized: "the server did not accept the credentials",
  Unsupported: "the server cannot carry locks",
  Protocol: "the server's answer is malformed",
  Options: "invalid options",
  Closed: "the Lock layer is closed"
}

/**
 * The backend failed. `operation` is the verb (`acquire`, `renew`, `release`, `connect`, ...); `address` is the server,
 * `host:port`; `detail` is a sentence for people without secrets; `cause` is the driver's error, for programs.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockBackendError extends Schema.TaggedError<LockBackendError>()("LockBackendError", {
  backend: Schema.String,
  operation: Schema.String,
  reason: BackendReason,
  address: Schema.optionalKey(Schema.String),
  detail: Schema.optionalKey(Schema.String),
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message(): string {
    const detail = this.detail === undefined ? "" : ` (${this.detail})`
    const at = this.address === undefined ? "" : ` at ${this.address}`
    return `${this.backend} could not ${this.operation}${at}: ${backendText[this.reason]}${detail}`
  }
}

/**
 * The request is invalid (an empty or over-long key, a ttl below what the backend can do, ...). Nothing was sent.
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
