/**
 * Waiting: one GET_LOCK that blocks on the server, on a session of its own. The server's line is first come, first
 * served, and gives the lock to its head in the step that releases it, so nobody can overtake.
 */
import type { LockBackendError } from "@dlock/core"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { Ask } from "./MysqlAsk.ts"
import type { Attempt, Attempts } from "./MysqlAttempt.ts"
import type { Control } from "./MysqlControl.ts"
import { backendError, closed, isDeadlock, isInterrupted, type MysqlError, toBackendError } from "./MysqlError.ts"
import type { Tokens } from "./MysqlFencing.ts"
import type { Session } from "./MysqlSession.ts"
import type { Sessions } from "./MysqlSessions.ts"
import * as Sql from "./MysqlSql.ts"

export interface Line {
  /** Complete when the attempt holds its lock. Fails when it can not, or when it was given back meanwhile. */
  readonly wait: (attempt: Attempt) => Effect.Effect<Session, LockBackendError>
  /** Releases what the attempt holds or may hold on `session`, in the order of the session's statements. */
  readonly release: (attempt: Attempt, session: Session) => Ask<string | null>
  /** Gives back an attempt that does not hold its lock yet, or may. `true` when it had it after all. */
  readonly leave: (attempt: Attempt) => Effect.Effect<boolean, MysqlError>
}

export const givenBack = backendError("acquire", "Rejected", "this attempt was given back")

const second = 1_000_000_000n

/** A wait that the server ends at once for so many times in a row will not come to an end. */
const most = 10

// NULL, an interruption, a time limit or a deadlock: the wait is over, and the place in line is lost.
const isRefusal = (exit: Exit.Exit<string | null, MysqlError>): boolean =>
  Exit.match(exit, {
    onSuccess: (cell) => cell === null,
    onFailure: () =>
      Result.match(Exit.findError(exit), {
        onSuccess: (error) => isInterrupted(error) || isDeadlock(error),
        onFailure: () => false
      })
  })

export const make = (attempts: Attempts, sessions: Sessions, control: Control, tokens: Tokens): Line => {
  const own = (attempt: Attempt): Effect.Effect<Session, LockBackendError> =>
    attempt.session === undefined
      ? Effect.uninterruptibleMask((restore) =>
        Effect.tap(
          restore(sessions.dedicated(attempt.seconds)),
          (session) => Effect.sync(() => attempts.bind(attempt, session))
        )
      )
      : Effect.succeed(attempt.session)

  const onAnswer = (attempt: Attempt, session: Session, exit: Exit.Exit<string | null, MysqlError>): void => {
    control.leave(session)
    if (Exit.isSuccess(exit) && exit.value !== null) {
      attempt.stage = "held"
      attempt.token = tokens.read(exit.value)
    } else if (!session.connection.isOpen()) {
      attempt.stage = "idle"
      attempts.unbind(attempt)
    } else {
      attempt.stage = isRefusal(exit) ? "idle" : "doubtful"
    }
  }

  const stand = (
    attempt: Attempt,
    session: Session
  ): Effect.Effect<Result.Result<string | null, MysqlError>, LockBackendError> =>
    Effect.suspend(() => {
      // In the step in which it is asked: Effect may yield between any two.
      if (attempt.voided) {
        attempts.unbind(attempt)
        return givenBack
      }
      attempt.stage = "waiting"
      attempts.lineUp(attempt)
      control.enter(session)
      const ask = session.connection.askPatiently(
        Sql.wait(attempt.name, tokens.expression),
        (exit) => onAnswer(attempt, session, exit)
      )
      attempt.ask = ask
      return Effect.result(ask.settled)
    })

  /**
   * A KILL that overtakes the GET_LOCK on its way to the server finds nothing to end, so one may not be enough. Where
   * none is, the GET_LOCK or its answer does not get through.
   */
  const endWait = Effect.fnUntraced(function*(session: Session, ask: Ask<string | null>) {
    for (let pause = 5; pause < 1000; pause *= 2) {
      yield* control.endWait(session)
      if (Option.isSome(yield* Effect.timeoutOption(Effect.result(ask.settled), pause))) {
        return
      }
    }
    session.connection.close(closed("its wait could not be ended"))
  })

  const release = (attempt: Attempt, session: Session): Ask<string | null> => {
    const { connection, names } = session
    attempt.stage = "releasing"
    const ask = connection.ask(Sql.release(attempt.name), (exit) => {
      if (Exit.isSuccess(exit) || !connection.isOpen()) {
        attempts.finish(attempt)
      } else if (names.get(attempt.name) === attempt) {
        attempt.stage = "held"
        attempt.release = undefined
      } else {
        // Who stands behind this release would take over a lock that was not given back.
        connection.close(closed("a lock could not be released"))
      }
    })
    if (attempt.waited) {
      // Whoever comes next in this program waits on another connection, so there is nothing to go out together with.
      connection.flush()
    }
    return ask
  }

  return {
    release,
    wait: Effect.fnUntraced(function*(attempt) {
      let refusals = 0
      while (true) {
        const session = yield* own(attempt)
        const start = yield* Clock.monotonicTimeNanos
        const result = yield* stand(attempt, session)
        if (attempt.voided) {
          return yield* givenBack
        }
        // Or was, if its session ended just now; its owner knows.
        if (Result.isSuccess(result) && result.success !== null) {
          return session
        }
        const error = Result.isFailure(result) ? result.failure : undefined
        if (error !== undefined && (attempt.stage === "doubtful" || error.code === "DLOCK_DESERTED")) {
          return yield* toBackendError("acquire", error)
        }
        // Somebody ended the wait or the session; the attempt goes to the end of the line.
        refusals = (yield* Clock.monotonicTimeNanos) - start > second ? 1 : refusals + 1
        if (refusals > most) {
          return yield* backendError("acquire", "Rejected", error?.message ?? "the server keeps ending the wait")
        }
        yield* Effect.sleep(Duration.millis(2 ** refusals))
      }
    }),
    leave: Effect.fnUntraced(function*(attempt) {
      const { ask, session, stage } = attempt
      if (ask === undefined || session === undefined || stage === "idle") {
        return false
      }
      if (ask.withdraw()) {
        control.leave(session)
        return false
      }
      if (stage === "waiting") {
        yield* endWait(session, ask)
      }
      yield* Effect.result(ask.settled)
      if (!session.connection.isOpen() || (stage === "taking" && attempt.session === undefined)) {
        return false
      }
      return (yield* release(attempt, session).settled) === "1"
    })
  }
}
