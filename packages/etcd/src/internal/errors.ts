/**
 * What the driver's errors mean. The driver keeps gRPC's text, `<code> <NAME>: <details>`, and not always its code.
 */
import { Errors } from "@dlock/core/backend"
import type { BackendReason, LockBackendError } from "@dlock/core/LockError"
import * as Data from "effect/Data"
import * as Predicate from "effect/Predicate"

/** The lease does not exist (any more). */
export class LeaseGone extends Data.TaggedError("LeaseGone")<{}> {}

export interface Failure {
  readonly _tag: "Failure"
  readonly reason: typeof BackendReason.Type
  readonly detail: string
  /** The code of gRPC, where it answered. */
  readonly code: number | undefined
  /** Another try may succeed, perhaps on another connection. */
  readonly passes: boolean
  /** The connection is not used again. */
  readonly broken: boolean
  /** The server may have carried the request out, or may still do so. */
  readonly unknown: boolean
  /** The server wants a login, or another one: the token ran out, or authentication was switched on. */
  readonly login: boolean
  /** The time ran out: it says less than what an earlier try failed with. */
  readonly late: boolean
}

type Verdict = Pick<Failure, "reason" | "passes" | "broken" | "unknown" | "login" | "late">

const verdict = (reason: Failure["reason"], flags: Partial<Omit<Verdict, "reason">> = {}): Verdict => ({
  reason,
  passes: false,
  broken: false,
  unknown: false,
  login: false,
  late: false,
  ...flags
})

const unsent = verdict("Unreachable", { passes: true, broken: true })
const cutOff = verdict("Unreachable", { passes: true, broken: true, unknown: true })
const silent = verdict("Timeout", { passes: true, broken: true, unknown: true, late: true })
const busy = verdict("Unreachable", { passes: true })
const wantsLogin = verdict("Unauthorized", { login: true })

/** What stands in the place of the server's words, which the driver must not read. */
export const staleToken = "the login ran out"

/** By text, where the code says too little. The texts are those of etcd, gRPC, the driver and its circuit breaker. */
const byText: ReadonlyArray<readonly [RegExp, Verdict]> = [
  [/No connection established|Name resolution failed|before call started|already closed|circuit breaker/, unsent],
  // gRPC's deadline passed before there was a connection to send anything on.
  [/Deadline exceeded.*(Waiting for LB pick|waiting for name resolution)/s, { ...unsent, late: true }],
  // The server gave up as the deadline passed that the try had told it, while it had no leader to ask.
  [/context deadline exceeded/, cutOff],
  [/etcdserver: request timed out/, verdict("Unreachable", { passes: true, unknown: true })],
  [/etcdserver: too many requests/, busy],
  [/the login ran out|invalid auth token|revision of auth store is old|user name is empty/, wantsLogin],
  [/authentication failed/, verdict("Unauthorized")]
]

const byCode: ReadonlyMap<number, Verdict> = new Map([
  [1, cutOff],
  [3, verdict("Rejected")],
  [4, silent],
  [5, verdict("Rejected")],
  [6, verdict("Rejected")],
  [7, verdict("Unauthorized")],
  [8, verdict("Rejected")],
  [9, verdict("Rejected")],
  [10, busy],
  [11, verdict("Rejected")],
  [12, verdict("Unsupported")],
  [13, verdict("Protocol", { passes: true, broken: true, unknown: true })],
  [14, cutOff],
  [15, verdict("Rejected")],
  [16, verdict("Unauthorized")]
])

const grpcText = /(?:^|\s)(\d{1,2}) [A-Z_]+: (.*)$/s

/** What went wrong: gRPC's own error carries the metadata of the call, so only its text and code are kept. */
export const classify = (error: unknown): Failure | LeaseGone => {
  const text = error instanceof Error ? error.message : String(error)
  if (text.includes("requested lease not found")) return new LeaseGone()
  const [, digits, detail = text] = grpcText.exec(text) ?? []
  const code = digits === undefined ? undefined : Number(digits)
  const tls = Errors.tlsProblem(new Error(text))
  const found = tls === undefined
    ? byText.find(([pattern]) => pattern.test(text))?.[1] ?? byCode.get(code ?? 0)
    : { ...unsent, reason: tls.reason }
  return {
    _tag: "Failure",
    detail: [tls?.detail, detail.replace(/\.? Resolution note: *$/, "")].filter(Predicate.isNotUndefined).join(": "),
    code,
    ...(found ?? verdict("Protocol", { unknown: true }))
  }
}

const failure = (detail: string, verdict: Verdict): Failure => ({
  _tag: "Failure",
  detail,
  code: undefined,
  ...verdict
})

export const timedOut = (millis: number): Failure => failure(`no answer within ${Math.round(millis)} ms`, silent)

/** The layer was closed, and its connections with it. */
export const closed = failure("the connection is closed", verdict("Unreachable"))

/** The login takes longer than the request may. The request itself was refused, so its outcome is known. */
export const loginPending = failure("the login was not answered in time", verdict("Unreachable"))

/** Locks on two clusters do not exclude each other, so the connection is not used. */
export const otherCluster = (found: string, known: string): Failure =>
  failure(`it belongs to the cluster ${found}, and the locks are held in the cluster ${known}`, unsent)

/** Certificates or a password that cannot be had. */
export const badOption = (detail: string): Failure => failure(detail, verdict("Options"))

/** The answer to a transaction that has nothing to do with a lease. */
export const noLeaseAsked = failure("no lease was asked for, and none found", verdict("Protocol"))

/** Makes the errors of this backend. */
export const etcd = Errors.make("etcd")

export const toError = (operation: string, { code, detail, reason }: Failure, at?: string): LockBackendError =>
  etcd.of(
    reason,
    operation,
    code === undefined ? { at, detail } : { at, cause: Object.assign(new Error(detail), { code }) }
  )

/** The store has no space left: it refuses what puts keys, and still deletes. */
export const isFull = ({ detail = "" }: LockBackendError): boolean => /database space exceeded/.test(detail)

/** Rights are given per key: being refused one key is an answer of a quorum to a known user. */
export const isForbidden = ({ detail = "" }: LockBackendError): boolean => /permission denied/.test(detail)
