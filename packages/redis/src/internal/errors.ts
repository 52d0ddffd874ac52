/**
 * What goes wrong between a backend and a server, and the errors made of it. A driver's error carries the command that
 * failed with its arguments, and the command that opens a connection carries the password, so nothing of it is passed on
 * but its text and its codes.
 */
import type { BackendReason, LockBackendError } from "@dlock/core"
import { Errors } from "@dlock/core/backend"

/** Why there is no answer. */
export type Failure =
  /** Nothing was sent: there is no connection. */
  | { readonly _tag: "NotConnected", readonly cause: unknown }
  /** There was no answer in time. */
  | { readonly _tag: "Late" }
  /** The driver failed, or the server refused. */
  | { readonly _tag: "Failed", readonly cause: unknown }
  /** The server cannot carry locks. */
  | { readonly _tag: "Unfit", readonly detail: string, readonly isReplica: boolean }

const reasons: ReadonlyArray<readonly [RegExp, BackendReason]> = [
  [/\b(NOAUTH|WRONGPASS|NOPERM)\b|invalid password|without any password configured/, "Unauthorized"],
  // These pass by themselves: the server loads its data or runs a script, a fail-over or a move of slots is under way, the
  // address leads to a replica for a moment, or there are too many clients.
  [
    /\b(LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|READONLY|BUSY|UNKILLABLE|NOREPLICAS)\b|max number of clients|Too many Cluster redirections/,
    "Unreachable"
  ],
  [/\b(MOVED|CROSSSLOT)\b|unknown command|cluster support disabled/i, "Unsupported"],
  [/Command timed out/, "Timeout"]
]

/** A server quotes the arguments of a command that it does not know: the password, when that is AUTH or HELLO. */
const withoutArguments = (message: string): string => message.replace(/,? with args beginning with[^]*$/, "")

export const text = (cause: unknown): string => {
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

export const isReadOnly = (cause: unknown): boolean => isAnswer(cause) && /\bREADONLY\b/.test(text(cause))

/** What kind of trouble it is. */
export const reasonOf = (cause: unknown): BackendReason => {
  const message = text(cause)
  return reasons.find(([pattern]) => pattern.test(message))?.[1] ?? (isAnswer(cause) ? "Rejected" : "Unreachable")
}

/** Whether trying again may help. */
export const passes = (failure: Failure): boolean => {
  switch (failure._tag) {
    case "NotConnected":
      return true
    case "Failed":
      return reasonOf(failure.cause) === "Unreachable"
    default:
      return false
  }
}

/** Makes the errors of a backend, `at` an address if that is known. */
export type ToError = (operation: string, failure: Failure, at?: string) => LockBackendError

/** A driver's error without what belongs to the command. */
const stripped = (cause: unknown): Error =>
  Object.assign(
    new Error(text(cause)),
    cause instanceof Error && { name: cause.name, ...("code" in cause && { code: cause.code }) }
  )

export const make = (backend: string, hide: (text: string) => string = (text) => text): ToError => {
  const errors = Errors.make(backend, hide)
  return (operation, failure, at) => {
    switch (failure._tag) {
      case "Late":
        return errors.timeout(operation, { at })
      case "Unfit":
        return errors.unsupported(operation, { at, detail: failure.detail })
      default: {
        const cause = stripped(failure.cause)
        const problem = Errors.tlsProblem(cause)
        if (problem !== undefined) return errors.of(problem.reason, operation, { at, detail: problem.detail, cause })
        const reason = reasonOf(failure.cause)
        // Without a connection nothing was refused, except that the connection itself may have been.
        const unopened = failure._tag === "NotConnected" && reason === "Timeout"
        return errors.of(unopened ? "Unreachable" : reason, operation, { at, cause })
      }
    }
  }
}
