/**
 * The backend, put together from its parts.
 */
import type { LockBackend, LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { ClientOptions } from "../MysqlLock.ts"
import * as MysqlAttempt from "./MysqlAttempt.ts"
import type { Client } from "./MysqlClient.ts"
import * as MysqlControl from "./MysqlControl.ts"
import * as MysqlDial from "./MysqlDial.ts"
import { backendError, name } from "./MysqlError.ts"
import * as MysqlFencing from "./MysqlFencing.ts"
import * as MysqlLine from "./MysqlLine.ts"
import * as MysqlLocks from "./MysqlLocks.ts"
import * as MysqlSession from "./MysqlSession.ts"
import * as MysqlSessions from "./MysqlSessions.ts"

const badOptions = (detail: string): LockBackendError => backendError("connect", "Options", detail)

const timeoutOf = (options: ClientOptions): Effect.Effect<Duration.Duration, LockBackendError> =>
  Duration.fromInput(options.commandTimeout ?? "5 seconds").pipe(
    Option.filter((timeout) => Duration.isFinite(timeout) && Duration.toMillis(timeout) >= 1),
    Effect.fromOption,
    Effect.mapError(() => badOptions("commandTimeout has to be a duration of a millisecond or more"))
  )

const limitOf = ({ connectionLimit = 50 }: ClientOptions): Effect.Effect<number, LockBackendError> =>
  Number.isSafeInteger(connectionLimit) && connectionLimit >= 3
    ? Effect.succeed(connectionLimit)
    : Effect.fail(badOptions(`connectionLimit has to be a whole number of 3 or more, and is ${connectionLimit}`))

const tokensOf = ({ fencing = "uuid" }: ClientOptions): Effect.Effect<MysqlFencing.Tokens, LockBackendError> => {
  if (fencing === "uuid") {
    return Effect.succeed(MysqlFencing.uuid)
  }
  const problem = MysqlFencing.tableProblem(fencing.table)
  return problem === undefined ? Effect.succeed(MysqlFencing.table(fencing.table)) : Effect.fail(badOptions(problem))
}

const check: LockBackend["Service"]["check"] = (_, ttl) =>
  Duration.toSeconds(ttl) > MysqlSession.longest ? "MySQL ends idle sessions after a year at most" : undefined

/** A backend over `client`, checked and ready. */
export const make = Effect.fnUntraced(function*(
  client: Client,
  options: ClientOptions
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const patience = yield* timeoutOf(options)
  const limit = yield* limitOf(options)
  const tokens = yield* tokensOf(options)
  const sessions = yield* MysqlSessions.make(yield* MysqlDial.make(client, limit - 1), patience, tokens.prepare)
  const control = yield* MysqlControl.make(yield* MysqlDial.make(client, 1), patience)
  const attempts = MysqlAttempt.make(sessions.vacate)
  const line = MysqlLine.make(attempts, sessions, control, tokens)
  const verbs = yield* MysqlLocks.make({
    attempts,
    keyPrefix: options.keyPrefix ?? "",
    line,
    patience,
    sessions,
    tokens
  })
  return { name, tenure: "session", check, ...verbs }
})
