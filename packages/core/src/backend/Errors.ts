/**
 * The errors of a backend: one line each, with the address of the server and without secrets.
 *
 * @since 0.1.0
 */
import { oneLine, withoutCredentials } from "../internal/config/show.ts"
import type { BackendReason } from "../LockError.ts"
import { LockBackendError } from "../LockError.ts"
import type { Address } from "./Address.ts"
import { format } from "./Address.ts"

/**
 * What is known of a failure besides its reason.
 *
 * @category models
 * @since 0.1.0
 */
export interface About {
  /** The server: `host:port`, or an address. */
  readonly at?: string | Pick<Address, "host" | "port"> | undefined
  /** What went wrong, without the server's words if there is a `cause`. */
  readonly detail?: string | undefined
  /** What the driver failed with. Its words go into the detail; of itself only the name and codes are kept. */
  readonly cause?: unknown
}

/**
 * Makes the errors of one backend, one function for each reason.
 *
 * @category models
 * @since 0.1.0
 */
export type Errors = { readonly [Reason in Uncapitalize<Exclude<BackendReason, "Closed">>]: Make } & {
  /** An error whose reason is found by the caller. */
  readonly of: (reason: BackendReason, operation: string, about?: About) => LockBackendError
}

/**
 * Makes an error of one reason. `operation` is the verb that failed (`connect`, `acquire`, ...).
 *
 * @category models
 * @since 0.1.0
 */
export type Make = (operation: string, about?: About) => LockBackendError

const longestWords = 300

/**
 * What a server or a driver said, as one short line without credentials.
 *
 * @category combinators
 * @since 0.1.0
 */
export const words = (cause: unknown): string => {
  const text = withoutCredentials(oneLine(cause))
  return text.length > longestWords ? `${text.slice(0, longestWords)}...` : text
}

const codes = ["code", "errno", "syscall"] as const

/**
 * A driver's error without what it carries along: the command with its arguments, options, the connection. Name, text
 * and codes are left.
 *
 * @category combinators
 * @since 0.1.0
 */
export const bare = (cause: unknown, hide: (text: string) => string = (text) => text): Error => {
  const error = new Error(hide(words(cause)))
  // The stack is where this was called, and repeats the text.
  error.stack = `${cause instanceof Error ? cause.name : "Error"}: ${error.message}`
  if (!(cause instanceof Error)) return error
  const kept = Object.entries(cause).filter(([name, value]) =>
    codes.some((code) => code === name) && (typeof value === "string" || typeof value === "number")
  )
  return Object.assign(error, { name: cause.name, ...Object.fromEntries(kept) })
}

const mistrusted = new Set([
  "CERT_HAS_EXPIRED",
  "CERT_NOT_YET_VALID",
  "CERT_REVOKED",
  "CERT_SIGNATURE_FAILURE",
  "CERT_UNTRUSTED",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
])

/**
 * What Node says of TLS, by its code and its text, as a reason and the next step; `undefined`: it is not about TLS.
 *
 * @category combinators
 * @since 0.1.0
 */
export const tlsProblem = (
  cause: unknown
): { readonly reason: BackendReason, readonly detail: string } | undefined => {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : ""
  const text = `${code} ${oneLine(cause)}`
  // gRPC keeps the text and not the code.
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID" || text.includes("does not match certificate's altnames")) {
    return { reason: "Rejected", detail: "the server's certificate is for another name; set tls.serverName" }
  }
  if (
    mistrusted.has(code) ||
    /self.signed certificate|unable to (verify|get).*certificate|certificate has expired/i.test(text)
  ) {
    return { reason: "Rejected", detail: "the server's certificate is not trusted; set tls.ca" }
  }
  if (/certificate required|bad certificate|unknown ca|certificate unknown|handshake failure/i.test(text)) {
    return {
      reason: "Unauthorized",
      detail: "the server did not accept the client's certificate; set tls.cert and tls.key"
    }
  }
  if (/wrong version number|packet length too long|record layer|EPROTO/i.test(text)) {
    return { reason: "Rejected", detail: "the port does not speak TLS; set tls to false" }
  }
  return undefined
}

/**
 * The errors of the backend of this name. `hide` takes the secrets out of what servers and drivers said: `Secret.hide`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (backend: string, hide: (text: string) => string = (text) => text): Errors => {
  const of: Errors["of"] = (reason, operation, { at, cause, detail } = {}) => {
    const said = cause === undefined ? undefined : words(cause)
    const told = [detail, said].filter((text) => text !== undefined && text !== "").join(": ")
    return new LockBackendError({
      backend,
      operation,
      reason,
      ...(at !== undefined && { address: typeof at === "string" ? at : format(at) }),
      ...(told !== "" && { detail: hide(told) }),
      ...(cause !== undefined && { cause: bare(cause, hide) })
    })
  }
  const by = (reason: BackendReason): Make => (operation, about) => of(reason, operation, about)
  return {
    of,
    unreachable: by("Unreachable"),
    timeout: by("Timeout"),
    rejected: by("Rejected"),
    unauthorized: by("Unauthorized"),
    unsupported: by("Unsupported"),
    protocol: by("Protocol"),
    options: by("Options")
  }
}

/**
 * Whether a failure passes by itself, so that what failed is worth another try: the server is unreachable (which is
 * also what one is that loads its data, is busy, or has no quorum), or did not answer in time.
 *
 * @category combinators
 * @since 0.1.0
 */
export const passes = (error: LockBackendError): boolean => error.reason === "Unreachable" || error.reason === "Timeout"
