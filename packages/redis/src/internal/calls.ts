/**
 * Scripts, called with a time limit: sent again as long as there is time when the connection broke or the server was
 * not ready, because every script may be sent twice.
 */
import type { LockBackendError } from "@dlock/core"
import { Calls } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import type { Connection } from "./client.ts"
import * as commands from "./commands.ts"
import type { Answered, Call } from "./commands.ts"
import type { Failure } from "./errors.ts"
import { passes } from "./errors.ts"

/** One call, and what is made of its answer. */
export interface Asking<A> extends Call {
  /** The verb, for errors. */
  readonly operation: string
  /** How long to wait, in milliseconds. */
  readonly limit: number
  readonly read: (answer: Answered) => Effect.Effect<A, LockBackendError>
}

const once = (connection: Connection, call: Call, limit: number): Effect.Effect<Answered, Failure> =>
  Effect.callback((resume) => {
    const pending = commands.call(
      connection.queue,
      call,
      limit,
      (outcome) => resume(outcome._tag === "Answered" ? Effect.succeed(outcome) : Effect.fail(outcome))
    )
    return Effect.sync(() => commands.abandon(pending))
  })

const isLate = (failure: Failure): boolean => failure._tag === "Late"

/** Calls a script; fails when there is no answer within the limit, or a refusal. */
export const run = <A>(connection: Connection, asking: Asking<A>): Effect.Effect<A, LockBackendError> =>
  Effect.suspend(() => {
    const { isWanted, limit, operation } = asking
    const { ready, timers } = connection
    let isFirst = true
    let isClosed = false
    const again = (failure: Failure): boolean => passes(failure) && !isClosed && isWanted?.() !== false
    const opened = Effect.tapError(ready, () => Effect.sync(() => isClosed = true))
    const called = Calls.repeat(timers, { limit, again, late: isLate }, (left) => {
      if (isFirst) {
        isFirst = false
        return once(connection, asking, left)
      }
      const until = timers.now() + left
      return Effect.timeoutOrElse(opened, { duration: left, orElse: () => Effect.fail({ _tag: "Late" } as const) })
        .pipe(
          Effect.andThen(Effect.suspend(() => once(connection, asking, Math.max(until - timers.now(), 1))))
        )
    })
    return Effect.matchEffect(called, {
      onFailure: (failure) => Effect.fail(connection.toError(operation, failure)),
      onSuccess: asking.read
    })
  })
