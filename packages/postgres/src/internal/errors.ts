/**
 * What the driver says, as errors of a backend.
 */
import type { BackendReason, LockBackendError } from "@dlock/core"
import { Errors } from "@dlock/core/backend"
import type { SqlError } from "effect/sql/SqlError"

/** The name of the backend in errors, spans and metrics. */
export const backendName = "postgres"

/** The SQLSTATE of an error, if the server sent one: five characters, some of them digits, unlike EPIPE. */
const stateOf = (cause: unknown): string | undefined =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" &&
    /^(?=.*\d)[0-9A-Z]{5}$/.test(cause.code)
    ? cause.code
    : undefined

/** The SQLSTATE, if the server sent one. */
export const codeOf = ({ reason }: SqlError): string | undefined => stateOf(reason.cause)

/** The connection is lost, or the server ends it. */
const lost = /^(08|57P)/

/** A standby, or a server that refuses to write for now. */
const readOnly = "25006"

/** Conflicts between transactions, too long a wait for a row, a lack of room, a server that starts, stops or is a standby. */
const passing = /^(08|25006|40001|40P01|53|55P03|57)/

/** Whether the connection is of no more use. */
export const endsSession = (error: SqlError): boolean => {
  const code = codeOf(error)
  return code === undefined ? error.reason._tag === "ConnectionError" : lost.test(code) || code === readOnly
}

/** Whether the server itself refused the statement, so that it did nothing and is not under way any more. */
export const isRefusal = (error: SqlError): boolean => {
  const code = codeOf(error)
  return code !== undefined && !lost.test(code)
}

/** Whether a statement for many keys may have been refused because of one of them. */
export const mayBeOfOneKey = (error: SqlError): boolean =>
  isRefusal(error) && !/^(25006|53|57)/.test(codeOf(error) ?? "")

/** Whether the server lacked connections, memory or disk. */
export const lacksCapacity = ({ cause }: LockBackendError): boolean => stateOf(cause)?.startsWith("53") === true

interface Kind {
  readonly reason: BackendReason
  readonly detail?: string
}

const kindOf = (error: SqlError): Kind => {
  const code = codeOf(error)
  if (code === undefined) {
    const tls = Errors.tlsProblem(error.reason.cause)
    if (tls !== undefined) return tls
    if (error.reason._tag === "ConnectionError") return { reason: "Unreachable" }
    return { reason: error.reason._tag === "AuthenticationError" ? "Unauthorized" : "Protocol" }
  }
  if (/^28|^42501$/.test(code)) return { reason: "Unauthorized" }
  if (/^(3F000|42P01|42883)$/.test(code)) {
    return {
      reason: "Rejected",
      detail: "run schema.sql of @dlock/postgres in this database, or set createSchema to true"
    }
  }
  return { reason: passing.test(code) ? "Unreachable" : "Rejected" }
}

/** Whether the same request may succeed in a moment. */
export const passes = (error: SqlError): boolean => kindOf(error).reason === "Unreachable"

/** The error of a verb. */
export const toBackendError = (
  errors: Errors.Errors,
  operation: string,
  at: string,
  error: SqlError
): LockBackendError => {
  const { detail, reason } = kindOf(error)
  return errors.of(reason, operation, { at, detail, cause: error.reason.cause })
}
