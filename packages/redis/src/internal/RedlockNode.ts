/**
 * One of the N servers: each request is sent once, and its answer awaited for a short while.
 */
import type { BackendReason } from "@dlock/core"
import { LockBackendError } from "@dlock/core"
import { toError as toRedisError } from "./RedisCall.ts"
import type { Failure, RedisClient } from "./RedisClient.ts"
import * as RedisError from "./RedisError.ts"
import type { Call, Outcome } from "./RedisQueue.ts"

/** What errors are called after. */
export const backendName = "redlock"

/** One server. */
export interface RedlockNode {
  /** How people know it. */
  readonly label: string
  readonly client: RedisClient
  /** What stands before every key on it. */
  readonly keyPrefix: string
  /** Asks at the end of this turn, once. `limit`: how long to wait for the answer, in ms. */
  readonly ask: (call: Call, limit: number, onOutcome: (outcome: Outcome) => void) => void
  /** Whether it answered the last request that was due. */
  readonly seemsUp: () => boolean
  /** Its clock minus our monotonic one, in µs, once that is known. */
  clockAhead: number | undefined
}

/** An error of the whole backend. */
export const backendError = (
  operation: string,
  reason: BackendReason,
  detail: string,
  cause?: LockBackendError["cause"]
): LockBackendError =>
  new LockBackendError({
    backend: backendName,
    operation,
    reason,
    detail,
    ...(cause !== undefined && { cause })
  })

/** A server's failure, with its name. */
export const toError = (operation: string, label: string, failure: Failure): LockBackendError => {
  const error = toRedisError(operation, failure)
  return backendError(operation, error.reason, `${label}: ${error.detail ?? "no answer in time"}`, error.cause)
}

export const make = (label: string, client: RedisClient, keyPrefix: string): RedlockNode => {
  let seemsUp = true
  return {
    label,
    client,
    keyPrefix: client.keyPrefix + keyPrefix,
    ask: (call, limit, onOutcome) => {
      client.call(call, limit, (outcome) => {
        // What was not sent shows nothing.
        if (call.isWanted?.() !== false || outcome._tag === "Answered") {
          seemsUp = outcome._tag === "Answered" || (outcome._tag === "Failed" && RedisError.isAnswer(outcome.cause))
        }
        onOutcome(outcome)
      })
    },
    seemsUp: () => seemsUp,
    clockAhead: undefined
  }
}
