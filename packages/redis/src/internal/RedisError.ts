/**
 * The driver's errors as ours. A driver's error carries the command that failed with its arguments, and the command
 * that opens a connection carries the password, so nothing of it is passed on but its text.
 */
import type { BackendReason } from "@dlock/core"
import { LockBackendError } from "@dlock/core"

const reasons: ReadonlyArray<readonly [RegExp, BackendReason]> = [
  [/\b(NOAUTH|WRONGPASS|NOPERM)\b|invalid password|without any password configured/, "Unauthorized"],
  // The server is there but has no data to answer from, for now; or a slot is on its way from one to another.
  [/\b(LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN)\b|Too many Cluster redirections/, "Unreachable"],
  [/\b(MOVED|CROSSSLOT)\b|unknown command|cluster support disabled/i, "Unsupported"],
  [/Command timed out/, "Timeout"]
]

/** A server quotes the arguments of a command that it does not know: the password, when that is AUTH or HELLO. */
const withoutArguments = (message: string): string => message.replace(/,? with args beginning with[^]*$/, "")

const text = (cause: unknown): string => {
  // A host with several addresses: one error for each, under an error without a message.
  if (cause instanceof AggregateError) return cause.errors.map(text).join(", ")
  // No node of a cluster could be asked: what the last of them said.
  if (cause instanceof Error && "lastNodeError" in cause && cause.lastNodeError instanceof Error) {
    return text(cause.lastNodeError)
  }
  return withoutArguments(cause instanceof Error ? cause.message : String(cause))
}

/** Whether the server itself answered, so that the command is not under way any more. */
export const isAnswer = (cause: unknown): boolean => cause instanceof Error && cause.name === "ReplyError"

/** Whether the server does not have the script. */
export const isNoScript = (cause: unknown): boolean => isAnswer(cause) && text(cause).startsWith("NOSCRIPT")

/** What kind of trouble it is. */
export const reasonOf = (cause: unknown): BackendReason => {
  const message = text(cause)
  return reasons.find(([pattern]) => pattern.test(message))?.[1] ?? (isAnswer(cause) ? "Rejected" : "Unreachable")
}

/** An error of the driver, without the command that it belongs to. */
export const fromDriver = (
  backend: string,
  operation: string,
  cause: unknown,
  reason: BackendReason = reasonOf(cause)
): LockBackendError => {
  const detail = text(cause)
  return new LockBackendError({
    backend,
    operation,
    reason,
    detail,
    cause: Object.assign(new Error(detail), cause instanceof Error && { name: cause.name })
  })
}
