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

  const wait = (attempt: Attempt, refusals = 0): Effect.Effect<Session, LockBackendError> =>
    Effect.flatMap(
      own(attempt),
      (session) => Effect.flatMap(Clock.monotonicTimeNanos, (since) => stand(attempt, session, since, refusals))
    )

  /** Somebody ended the wait or the session; the attempt goes to the end of the line. */
  const refused = (
    attempt: Attempt,
    since: bigint,
    refusals: number,
    reason: string
  ): Effect.Effect<Session, LockBackendError> =>
    Effect.flatMap(Clock.monotonicTimeNanos, (now) => {
      const inARow = now - since > second ? 1 : refusals + 1
      return inARow > most
        ? Effect.fail(backendError("acquire", "Rejected", reason))
        : Effect.andThen(Effect.sleep(Duration.millis(2 ** inARow)), Effect.suspend(() => wait(attempt, inARow)))
    })

  const stand = (
    attempt: Attempt,
    session: Session,
    since: bigint,
    refusals: number
  ): Effect.Effect<Session, LockBackendError> => {
    // In the step in which it is asked: Effect may yield between any two.
    if (attempt.voided) {
      attempts.unbind(attempt)
      return givenBack
    }
    attempt.stage = "waiting"
    attempts.lineUp(attempt)
    control.enter(session)
    attempt.ask = session.connection.askPatiently(
      Sql.wait(attempt.name, tokens.expression),
      (exit) => onAnswer(attempt, session, exit)
    )
    return Effect.matchEffect(attempt.ask.settled, {
      onSuccess: (cell) => {
        if (attempt.voided) {
          return givenBack
        }
        // It is ours; or was, if its session ended just now, and its owner knows.
        return cell !== null
          ? Effect.succeed(session)
          : refused(attempt, since, refusals, "the server keeps ending the wait")
      },
      onFailure: (error) => {
        if (attempt.voided) {
          return givenBack
        }
        return attempt.stage === "doubtful" || error.code === "DLOCK_DESERTED"
          ? Effect.fail(toBackendError("acquire", error))
          : refused(attempt, since, refusals, error.message)
      }
    })
  }

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
    wait,
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
