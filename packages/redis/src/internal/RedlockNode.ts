/**
 * One of the N servers: each request is sent once, and its answer awaited for a short while.
 */
import type { BackendReason } from "@dlock/core"
import { LockBackendError } from "@dlock/core"
import * as Effect from "effect/Effect"
import { toError as toRedisError } from "./RedisCall.ts"
import type { Answer, Failure, RedisClient } from "./RedisClient.ts"
import * as RedisError from "./RedisError.ts"
import type { Script } from "./RedisScripts.ts"

/** What errors are called after. */
export const backendName = "redlock"

/** One request. */
export interface Ask {
  readonly script: Script
  readonly keys: ReadonlyArray<string>
  /** Called each time that it is written. */
  readonly args: (sentAt: bigint) => Array<string>
  /** How long to wait for the answer, in ns. */
  readonly limit: bigint
  /** Called each time that the server answers, also if nobody waits for it any more. */
  readonly onAnswer?: (() => void) | undefined
  /** Whether to send it, and to send it again. Default: yes. */
  readonly isWanted?: (() => boolean) | undefined
}

/** One server. */
export interface RedlockNode {
  /** How people know it. */
  readonly label: string
  readonly client: RedisClient
  /** What stands before every key on it. */
  readonly keyPrefix: string
  readonly ask: (ask: Ask) => Effect.Effect<Answer, Failure>
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

const unwanted: Effect.Effect<never, Failure> = Effect.fail({ _tag: "NotConnected", cause: "given back" })

export const make = (label: string, client: RedisClient, keyPrefix: string): RedlockNode => {
  let seemsUp = true

  /** EVALSHA, or EVAL when the server does not have the script: it may have been restarted or flushed at any time. */
  const ask = ({ args, isWanted, keys, limit, onAnswer, script }: Ask): Effect.Effect<Answer, Failure> => {
    const answered = () => {
      seemsUp = true
      onAnswer?.()
    }
    const send = (command: string, name: string) =>
      client.send({
        command,
        args: (sentAt) => [name, `${keys.length}`, ...keys, ...args(sentAt)],
        limit,
        onAnswer: answered
      })
    return Effect.suspend(() => isWanted?.() === false ? unwanted : send("evalsha", script.sha1)).pipe(
      Effect.catch((failure) => {
        if (failure._tag === "Failed" && RedisError.isNoScript(failure.cause) && isWanted?.() !== false) {
          return send("eval", script.source)
        }
        if (failure._tag !== "Failed" || !RedisError.isAnswer(failure.cause)) seemsUp = false
        return Effect.fail(failure)
      })
    )
  }

  return {
    label,
    client,
    keyPrefix: client.keyPrefix + keyPrefix,
    ask,
    seemsUp: () => seemsUp,
    clockAhead: undefined
  }
}
