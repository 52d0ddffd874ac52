/**
 * Scripts, called with a time limit: sent again as long as there is time when the connection broke or the server was
 * not ready, because every script may be sent twice.
 */
import { LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { Connection, Failure } from "./RedisClient.ts"
import * as RedisError from "./RedisError.ts"
import type { Answered, Call } from "./RedisQueue.ts"

/** One call, and what is made of its answer. */
export interface Asking<A> extends Call {
  /** The verb, for errors. */
  readonly operation: string
  /** How long to wait, in ms. */
  readonly limit: number
  readonly read: (answer: Answered) => Effect.Effect<A, LockBackendError>
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

const millisNow = (client: Connection): number => Number(client.now()) / 1e6

/** `until`: how long it is tried, in ms; by default as long as this call may take. */
const once = <A>(
  client: Connection,
  asking: Asking<A>,
  limit: number,
  until?: number
): Effect.Effect<A, LockBackendError> =>
  Effect.callback((resume) => {
    const pending = client.call(asking, limit, (outcome) =>
      resume(
        outcome._tag === "Answered"
          ? Effect.suspend(() => asking.read(outcome))
          : again(client, asking, until ?? pending.at, outcome)
      ))
    return Effect.sync(() => pending.abandon())
  })

const again = <A>(
  client: Connection,
  asking: Asking<A>,
  until: number,
  last: Failure
): Effect.Effect<A, LockBackendError> => {
  const failed = Effect.suspend(() => Effect.fail(toError(asking.operation, last)))
  if (!isTransient(last) || asking.isWanted?.() === false) return failed
  return Effect.gen(function*() {
    // A connection that is gone is waited for; a server that is there but not ready would be asked without end.
    if (last._tag === "Failed") yield* Effect.sleep(pause)
    const left = until - millisNow(client)
    if (left <= 0) return yield* failed
    const opened = yield* Effect.result(Effect.timeoutOption(client.ready, Duration.millis(left)))
    if (Result.isFailure(opened)) return yield* Effect.fail(toError(asking.operation, opened.failure))
    if (Option.isNone(opened.success)) return yield* failed
    return yield* once(client, asking, until - millisNow(client), until)
  })
}

/** Calls a script; fails when there is no answer within the limit, or a refusal. */
export const run = <A>(client: Connection, asking: Asking<A>): Effect.Effect<A, LockBackendError> =>
  once(client, asking, asking.limit)
