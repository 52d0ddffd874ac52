/**
 * Scripts, called with a time limit: sent again as long as there is time when the connection broke or the server was
 * not ready, because every script may be sent twice.
 */
import { LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { Answer, Connection, Failure } from "./RedisClient.ts"
import * as RedisError from "./RedisError.ts"
import type { Script } from "./RedisScripts.ts"

/** One call of a script. */
export interface Call {
  /** The verb, for errors. */
  readonly operation: string
  readonly script: Script
  /** The number of KEYS, the KEYS, and the ARGV that all scripts have. */
  readonly common: ReadonlyArray<string>
  /** The other ARGV. Called each time that it is sent. */
  readonly args?: ((sentAt: bigint) => ReadonlyArray<string>) | undefined
  /** Called each time that the server answers. */
  readonly onAnswer?: (() => void) | undefined
  /** How long to wait, in ns. */
  readonly limit: bigint
  /** Whether to send it again. Default: yes. */
  readonly isWanted?: (() => boolean) | undefined
}

/** What errors are called after. */
export const backendName = "redis"

/** The pause before a server that is there but not ready (it loads its data, it has no master) is asked again. */
const pause = Duration.millis(50)

export const toError = (operation: string, failure: Failure): LockBackendError => {
  if (failure._tag === "Late") return new LockBackendError({ backend: backendName, operation, reason: "Timeout" })
  const reason = RedisError.reasonOf(failure.cause)
  // Without a connection nothing was refused, except that the connection itself may have been.
  const unopened = failure._tag === "NotConnected" && reason === "Timeout"
  return RedisError.fromDriver(backendName, operation, failure.cause, unopened ? "Unreachable" : reason)
}

const isTransient = (failure: Failure): boolean =>
  failure._tag === "NotConnected" ||
  (failure._tag === "Failed" && RedisError.reasonOf(failure.cause) === "Unreachable")

const send = (client: Connection, call: Call, limit: bigint, command: string, script: string) =>
  client.send({
    command,
    args: (sentAt) => [script, ...call.common, ...(call.args?.(sentAt) ?? [])],
    limit,
    onAnswer: call.onAnswer
  })

/** EVALSHA, or EVAL when the server does not have the script: it may have been restarted or flushed at any time. */
const once = (client: Connection, call: Call, limit: bigint): Effect.Effect<Answer, Failure> =>
  Effect.catch(
    send(client, call, limit, "evalsha", call.script.sha1),
    (failure) =>
      failure._tag === "Failed" && RedisError.isNoScript(failure.cause)
        ? send(client, call, limit, "eval", call.script.source)
        : Effect.fail(failure)
  )

const again = Effect.fnUntraced(function*(client: Connection, call: Call, first: Failure, until: bigint) {
  let last = first
  while (isTransient(last)) {
    // A connection that is gone is waited for; a server that is there but not ready would be asked without end.
    if (last._tag === "Failed") yield* Effect.sleep(pause)
    const left = until - client.now()
    if (left <= 0n || call.isWanted?.() === false) break
    const opened = yield* Effect.result(Effect.timeoutOption(client.ready, Duration.nanos(left)))
    if (Result.isFailure(opened)) return yield* toError(call.operation, opened.failure)
    if (Option.isNone(opened.success)) break
    const result = yield* Effect.result(once(client, call, until - client.now()))
    if (Result.isSuccess(result)) return result.success
    last = result.failure
  }
  return yield* toError(call.operation, last)
})

/** Calls a script; fails when there is no answer within the limit, or a refusal. */
export const run = (client: Connection, call: Call): Effect.Effect<Answer, LockBackendError> =>
  Effect.suspend(() => {
    const until = client.now() + call.limit
    return Effect.catch(once(client, call, call.limit), (failure) => again(client, call, failure, until))
  })
