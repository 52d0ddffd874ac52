/**
 * What the server or the driver said, without the statement that provoked it.
 */
import type { BackendReason, LockBackendError } from "@dlock/core"
import { Errors } from "@dlock/core/backend"
import * as Data from "effect/Data"
import * as Predicate from "effect/Predicate"

/** The name of the backend in errors, spans and metrics. */
export const name = "mysql"

export class MysqlError extends Data.TaggedError("MysqlError")<{
  /** The server's symbol, the driver's or the system's, or one of ours. */
  readonly code: string
  /** The server's number; none when the server said nothing. */
  readonly errno?: number | undefined
  /** What it is for the caller, where we said it ourselves. */
  readonly reason?: BackendReason | undefined
  readonly message: string
}> {}

const ours = (code: string, reason: BackendReason = "Unreachable") => (message: string): MysqlError =>
  new MysqlError({ code, reason, message })

/** A statement that was sent has no answer yet. */
export const stalled = (): MysqlError => ours("DLOCK_STALLED", "Timeout")("no answer within the command timeout")

/** We closed the connection ourselves. */
export const closed = ours("DLOCK_CLOSED")

/** The server ends every wait at once. */
export const refused = ours("DLOCK_REFUSED", "Rejected")

/** The server closed the connection. */
export const ended = (): MysqlError => ours("DLOCK_ENDED")("the server closed the connection")

/** There is no connection within the command timeout. */
export const notConnected = ours("DLOCK_NO_CONNECTION")

/** There is no connection within the command timeout, because others were made first. */
export const crowded = ours("DLOCK_CROWDED")

/** The server does not answer on another connection either, so it would not tell of a grant on this one. */
export const deserted = ours("DLOCK_DESERTED")

/** A malformed answer. */
export const senseless = ours("DLOCK_SENSELESS", "Protocol")

/** The server, or what stands before it, cannot carry locks. */
export const unsupported = ours("DLOCK_UNSUPPORTED", "Unsupported")

/** The server cannot carry locks now. */
export const unfit = ours("DLOCK_UNFIT")

/** An option whose value is only known when it is used is invalid. */
export const invalid = ours("DLOCK_OPTIONS", "Options")

/** What is needed to connect is unavailable now. */
export const unavailable = ours("DLOCK_UNAVAILABLE")

/** `connectionLimit` connections are open. */
export const full = (limit: number): MysqlError =>
  ours("DLOCK_FULL", "Rejected")(`connectionLimit is reached: ${limit} connections hold locks or wait for locks`)

/** The caller's pool has no connection for us. */
export const poolFull = ours("DLOCK_POOL_FULL")

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

const oneOf = (...numbers: ReadonlyArray<number>) => {
  const set = new Set(numbers)
  return (error: MysqlError): boolean => error.errno !== undefined && set.has(error.errno)
}

/** 3058 of MySQL, 1213 of MariaDB: the server saw a cycle of waits and chose this one to end. */
export const isDeadlock = oneOf(3058, 1213)

/** The wait ended, no more: `KILL QUERY` (1317), and time limits of statements (3024 of MySQL, 1969 of MariaDB). */
export const isInterrupted = oneOf(1317, 3024, 1969)

/**
 * The session is over, though the connection may not have ended yet: shutdown (1053), `KILL` (1927), idle for too long
 * (4031). Or something between us reset it (1243), and its locks with it.
 */
export const isEnding = oneOf(1053, 1927, 4031, 1243)

const ends = new Set(["DLOCK_CLOSED", "DLOCK_ENDED", "PROTOCOL_CONNECTION_LOST", "ECONNRESET", "EPIPE"])

/** The connection is over. */
export const isEnded = (error: MysqlError): boolean => ends.has(error.code) || isEnding(error)

/** The table of the fencing tokens does not exist. */
export const isNoTable = oneOf(1146)

/** The server lacks what locks need: no such function (1305), no such variable (1193), not supported yet (1235). */
export const isLacking = oneOf(1305, 1193, 1235)

const isOutOfConnections = oneOf(1040, 1203, 1226)

/** It says that time ran out, and not why. */
export const isLate = ({ code }: MysqlError): boolean => code === "DLOCK_NO_CONNECTION" || code === "DLOCK_STALLED"

/** All connections of this program are taken, which says nothing about the server. */
export const isFull = ({ code }: MysqlError): boolean => code === "DLOCK_FULL" || code === "DLOCK_POOL_FULL"

/** There is a lack of connections here or on the server, or many are made: what waits goes on waiting. */
export const isCrowded = (error: MysqlError): boolean =>
  isFull(error) || error.code === "DLOCK_CROWDED" || isOutOfConnections(error)

/**
 * What passes by itself, besides a lack of connections: offline mode (3032), a server that became read-only (1290,
 * 1836), a table or row that another transaction locks (1205), a deadlock between two updates (1213).
 */
const isPassingNumber = oneOf(3032, 1290, 1836, 1205, 1213)

/** It passes by itself, so that it is worth asking again. */
export const isPassing = (error: MysqlError): boolean =>
  error.code === "DLOCK_UNFIT" || error.code === "DLOCK_POOL_FULL" || isOutOfConnections(error) ||
  isPassingNumber(error)

const isUnauthorized = oneOf(1044, 1045, 1130, 1142, 1143, 1227, 1251, 1698, 1820, 1862, 3118, 3159, 4151)

/** What the driver says; what the system says (`ECONNREFUSED`, ...) is not among it. */
const reasons: Readonly<Record<string, BackendReason>> = {
  HANDSHAKE_NO_SSL_SUPPORT: "Rejected",
  HANDSHAKE_SSL_ERROR: "Rejected",
  HANDSHAKE_UNKNOWN_ERROR: "Protocol",
  AUTH_SWITCH_PLUGIN_ERROR: "Unauthorized",
  PROTOCOL_ERROR: "Protocol",
  PROTOCOL_UNEXPECTED_PACKET: "Protocol"
}

const reasonOf = (error: MysqlError): BackendReason => {
  if (error.errno === undefined || isEnding(error)) {
    return error.reason ?? reasons[error.code] ?? "Unreachable"
  }
  if (isLacking(error)) {
    return "Unsupported"
  }
  return isUnauthorized(error) ? "Unauthorized" : isPassing(error) ? "Unreachable" : "Rejected"
}

/** The driver gives what TLS fails with a code of its own. */
const tlsProblem = (error: MysqlError): ReturnType<typeof Errors.tlsProblem> => {
  if (error.errno !== undefined) {
    return undefined
  }
  if (error.code === "HANDSHAKE_NO_SSL_SUPPORT") {
    return { reason: "Rejected", detail: "the server does not speak TLS; set tls to false" }
  }
  return error.message.includes("altnames")
    ? { reason: "Rejected", detail: "the server's certificate is for another name; set tls.serverName" }
    : Errors.tlsProblem(error)
}

/** The error of a verb. What TLS failed with is told with the option that mends it. */
export const toBackendError =
  (errors: Errors.Errors, at?: string) => (operation: string) => (error: MysqlError): LockBackendError => {
    const tls = tlsProblem(error)
    return errors.of(tls?.reason ?? reasonOf(error), operation, { at, detail: tls?.detail, cause: error })
  }
