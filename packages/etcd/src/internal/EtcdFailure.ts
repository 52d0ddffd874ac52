/**
 * What the driver's errors mean. The driver keeps gRPC's text, `<code> <NAME>: <details>`, and not always its code.
 */
import { type BackendReason, LockBackendError } from "@dlock/core/LockError"
import * as Data from "effect/Data"

/** The lease does not exist (any more). */
export class LeaseGone extends Data.TaggedError("LeaseGone")<{}> {}

export interface Failure {
  readonly _tag: "Failure"
  readonly reason: typeof BackendReason.Type
  readonly detail: string
  readonly cause: Error | undefined
  /** Another try may succeed, perhaps on another connection. */
  readonly transient: boolean
  /** The connection is not to be trusted any more. */
  readonly broken: boolean
  /** The request may have been carried out, or may be still. */
  readonly doubtful: boolean
}

type Verdict = Pick<Failure, "reason" | "transient" | "broken" | "doubtful">

const verdict = (reason: Failure["reason"], flags: Partial<Omit<Verdict, "reason">> = {}): Verdict => ({
  reason,
  transient: false,
  broken: false,
  doubtful: false,
  ...flags
})

const unsent = verdict("Unreachable", { transient: true, broken: true })
const cutOff = verdict("Unreachable", { transient: true, broken: true, doubtful: true })
const silent = verdict("Timeout", { transient: true, broken: true, doubtful: true })
const busy = verdict("Rejected", { transient: true })
const staleToken = verdict("Unauthorized", { transient: true, broken: true })

/** By text, where the code says too little. The texts are those of etcd, gRPC, the driver and its circuit breaker. */
const byText: ReadonlyArray<readonly [RegExp, Verdict]> = [
  [/No connection established|Name resolution failed|before call started|already closed|circuit breaker/, unsent],
  [/etcdserver: request timed out/, verdict("Timeout", { transient: true, doubtful: true })],
  [/etcdserver: too many requests/, busy],
  [/invalid auth token|revision of auth store is old/, staleToken],
  [/authentication failed|user name is empty|authentication is not enabled/, verdict("Unauthorized")]
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
  [13, verdict("Protocol", { transient: true, broken: true, doubtful: true })],
  [14, cutOff],
  [15, verdict("Rejected")],
  [16, verdict("Unauthorized")]
])

const grpcText = /(?:^|\s)(\d{1,2}) [A-Z_]+: (.*)$/s

/** What went wrong. The cause is a new error with nothing but the text: gRPC's own carries the call's metadata. */
export const classify = (error: unknown): Failure | LeaseGone => {
  const text = error instanceof Error ? error.message : String(error)
  if (text.includes("requested lease not found")) return new LeaseGone()
  const [, code, detail = text] = grpcText.exec(text) ?? []
  const found = byText.find(([pattern]) => pattern.test(text))?.[1] ?? byCode.get(Number(code))
  return {
    _tag: "Failure",
    detail: detail.replace(/\.? Resolution note: *$/, ""),
    cause: new Error(text),
    ...(found ?? verdict("Protocol", { doubtful: true }))
  }
}

export const timedOut = (millis: number): Failure => ({
  _tag: "Failure",
  detail: `no answer within ${Math.round(millis)} ms`,
  cause: undefined,
  ...silent
})

/** The answer to a transaction that has nothing to do with a lease. */
export const noLeaseAsked: Failure = {
  _tag: "Failure",
  detail: "no lease was asked for, and none found",
  cause: undefined,
  ...verdict("Protocol")
}

export const toError = (operation: string, { cause, detail, reason }: Failure): LockBackendError =>
  new LockBackendError({ backend: "etcd", operation, reason, detail, ...(cause !== undefined && { cause }) })
