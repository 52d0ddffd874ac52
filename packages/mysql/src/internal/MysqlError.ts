/**
 * What the server or the driver said, without the statement that provoked it.
 */
import type { BackendReason } from "@dlock/core"
import { LockBackendError } from "@dlock/core"
import * as Data from "effect/Data"
import * as Predicate from "effect/Predicate"

/** The name of the backend in errors, spans and metrics. */
export const name = "mysql"

export class MysqlError extends Data.TaggedError("MysqlError")<{
  /** The server's symbol, the driver's or the system's, or one of ours. */
  readonly code: string
  /** The server's number; none when the server said nothing. */
  readonly errno?: number | undefined
  readonly message: string
}> {}

/** Ours: a statement that was sent has no answer yet. */
export const stalled = (): MysqlError =>
  new MysqlError({ code: "DLOCK_STALLED", message: "no answer within the command timeout" })

/** Ours: we closed the connection ourselves. */
export const closed = (message: string): MysqlError => new MysqlError({ code: "DLOCK_CLOSED", message })

/** Ours: no connection within the command timeout. */
export const notConnected = (message: string): MysqlError => new MysqlError({ code: "DLOCK_NO_CONNECTION", message })

/** Ours: the server does not answer on another connection either, so it is of no use to wait on this one. */
export const deserted = (message: string): MysqlError => new MysqlError({ code: "DLOCK_DESERTED", message })

/** Ours: an answer that makes no sense. */
export const senseless = (message: string): MysqlError => new MysqlError({ code: "DLOCK_SENSELESS", message })

const text = (u: unknown): string | undefined => typeof u === "string" && u !== "" ? u : undefined

const property = (u: unknown, key: string): unknown => Predicate.hasProperty(u, key) ? u[key] : undefined

/** The driver's errors carry the statement (`sql`); only what the other side said is kept. */
export const fromDriver = (error: unknown): MysqlError => {
  const errors = property(error, "errors")
  // A host with several addresses fails with one error per address and an empty message.
  const first: unknown = Array.isArray(errors) ? errors[0] : undefined
  const errno = property(error, "errno")
  const code = text(property(error, "code"))
  return new MysqlError({
    code: code ?? "UNKNOWN",
    errno: typeof errno === "number" && errno > 0 ? errno : undefined,
    message: text(property(error, "message")) ?? text(property(first, "message")) ?? code ?? "unknown error"
  })
}

/** 3058 of MySQL, 1213 of MariaDB: the server saw a cycle of waits and chose this one to end. */
export const isDeadlock = (error: MysqlError): boolean => error.errno === 3058 || error.errno === 1213

/**
 * The session is about to end: shutdown (1053), `KILL` (1927), idle for too long (4031). Or something between us reset it
 * (1243: our prepared statement is gone), and its locks with it.
 */
const ending = new Set([1053, 1927, 4031, 1243])

/** `KILL QUERY` (1317) and time limits of statements (3024 of MySQL, 1969 of MariaDB). */
const interruptions = new Set([1317, 3024, 1969])

/** The server prepares no more statements (1461), or not this one (1295): it was not executed. */
const unprepared = new Set([1461, 1295])

const isOneOf = (errors: ReadonlySet<number>, error: MysqlError): boolean =>
  error.errno !== undefined && errors.has(error.errno)

/** The wait ended, no more. */
export const isInterrupted = (error: MysqlError): boolean => isOneOf(interruptions, error)

/** It is to be asked as a text. */
export const isUnprepared = (error: MysqlError): boolean => isOneOf(unprepared, error)

/** The session is over, though the connection may not have ended yet. */
export const isEnding = (error: MysqlError): boolean => isOneOf(ending, error)

const unauthorized = new Set([1044, 1045, 1130, 1142, 1143, 1227, 1251, 1698, 1820, 1862, 3118, 3159, 4151])

/** Of the driver and of ours; what the system says (`ECONNREFUSED`, ...) is not among them. */
const reasons: Readonly<Record<string, BackendReason>> = {
  DLOCK_STALLED: "Timeout",
  DLOCK_SENSELESS: "Protocol",
  HANDSHAKE_NO_SSL_SUPPORT: "Rejected",
  HANDSHAKE_SSL_ERROR: "Rejected",
  HANDSHAKE_UNKNOWN_ERROR: "Protocol",
  AUTH_SWITCH_PLUGIN_ERROR: "Unauthorized",
  PROTOCOL_ERROR: "Protocol",
  PROTOCOL_UNEXPECTED_PACKET: "Protocol"
}

const reasonOf = (error: MysqlError): BackendReason => {
  const { code, errno } = error
  if (errno === undefined || ending.has(errno)) {
    return reasons[code] ?? "Unreachable"
  }
  return unauthorized.has(errno) ? "Unauthorized" : "Rejected"
}

/** The error of a verb. `detail` defaults to what the other side said. */
export const toBackendError = (operation: string, error: MysqlError): LockBackendError =>
  new LockBackendError({ backend: name, operation, reason: reasonOf(error), detail: error.message, cause: error })

/** An error that no driver's error stands behind. */
export const backendError = (operation: string, reason: BackendReason, detail: string): LockBackendError =>
  new LockBackendError({ backend: name, operation, reason, detail })
