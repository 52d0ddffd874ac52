/**
 * The verbs of the backend.
 */
import type { Grant, LockBackend, LockBackendError, LockRequest } from "@dlock/core"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { Attempt, Attempts } from "./MysqlAttempt.ts"
import { backendError, isDeadlock, stalled, toBackendError } from "./MysqlError.ts"
import type { Tokens } from "./MysqlFencing.ts"
import { givenBack, type Line } from "./MysqlLine.ts"
import * as MysqlName from "./MysqlName.ts"
import * as MysqlSession from "./MysqlSession.ts"
import type { Session } from "./MysqlSession.ts"
import type { Sessions } from "./MysqlSessions.ts"
import * as Sql from "./MysqlSql.ts"

type Verbs = Pick<LockBackend["Service"], "tryAcquire" | "acquire" | "renew" | "release">

export interface Parts {
  readonly attempts: Attempts
  readonly sessions: Sessions
  readonly line: Line
  readonly tokens: Tokens
  readonly keyPrefix: string
  readonly patience: Duration.Duration
}

/** How often a session is opened or asked for one attempt, if sessions keep ending. */
const mostTries = 6

const undecided = backendError("acquire", "Rejected", "an earlier request of this attempt failed; give it back first")

const heldElsewhere = Effect.succeed(undefined)

const failed = (exit: Exit.Failure<unknown, LockBackendError>): Effect.Effect<never, LockBackendError> =>
  Result.match(Exit.findError(exit), { onSuccess: Effect.fail, onFailure: () => givenBack })

export const make = Effect.fnUntraced(
  function*({ attempts, keyPrefix, line, patience, sessions, tokens }: Parts): Effect.fn.Return<Verbs> {
    const fork = Effect.runForkWith(yield* Effect.context<never>())
    /** Given back, perhaps before anything was asked: an acquire that comes late gets nothing. */
    const voided = new WeakSet<LockRequest>()

    const onTaken = (attempt: Attempt, session: Session, exit: Exit.Exit<string | null, unknown>): void => {
      if (Exit.isSuccess(exit) && exit.value !== null) {
        attempt.stage = "held"
        attempt.token = tokens.read(exit.value)
      } else if (Exit.isSuccess(exit) || !session.connection.isOpen()) {
        attempt.stage = "idle"
        attempts.unbind(attempt)
      } else {
        attempt.stage = "doubtful"
      }
    }

    /**
     * Takes the lock on the shared session if it is free; the session that has it then. The statements of a session are
     * executed in order, so who comes while the lock is being released there stands right behind the release.
     */
    const take = (attempt: Attempt, tries = 1): Effect.Effect<Session | undefined, LockBackendError> => {
      const tryAgain = Effect.suspend(() => take(attempt, tries + 1))
      if (attempt.voided) {
        return givenBack
      }
      const session = sessions.shared(attempt.seconds)
      if (session === undefined) {
        return tries < mostTries
          ? Effect.andThen(sessions.openShared(attempt.seconds), tryAgain)
          : Effect.fail(backendError("acquire", "Unreachable", "the server ends every session"))
      }
      const rival = session.names.get(attempt.name)
      if (rival !== undefined && rival.stage !== "releasing") {
        return heldElsewhere
      }
      attempts.bind(attempt, session)
      attempt.stage = "taking"
      attempt.ask = session.connection.ask(
        Sql.take(attempt.name, tokens.expression),
        (exit) => onTaken(attempt, session, exit)
      )
      return Effect.matchEffect(attempt.ask.await, {
        onSuccess: (cell) =>
          attempt.voided
            ? givenBack
            // It is ours; or was, if its session ended just now, and its owner knows.
            : cell !== null
            ? Effect.succeed(session)
            : heldElsewhere,
        onFailure: (error) => {
          if (attempt.voided) {
            return givenBack
          }
          // A lock that is held elsewhere can look like a deadlock to a session that holds others, even without a wait.
          if (isDeadlock(error)) {
            attempt.stage = "idle"
            attempts.unbind(attempt)
            return heldElsewhere
          }
          // What was asked of a session that ended is not held; so it may be asked of another one.
          return session.connection.isOpen() || error.code === "DLOCK_STALLED" || tries >= mostTries
            ? Effect.fail(toBackendError("acquire", error))
            : tryAgain
        }
      })
    }

    const grant = (attempt: Attempt, session: Session): Effect.Effect<Grant, LockBackendError> => {
      const { token } = attempt
      if (token !== undefined) {
        return Effect.succeed(MysqlSession.grant(session, token))
      }
      return tokens.next(session.connection, attempt.name).pipe(
        Effect.mapError((error) => toBackendError("acquire", error)),
        Effect.map((token) => {
          attempt.token = token
          return MysqlSession.grant(session, token)
        })
      )
    }

    /** The same owner asks again: its own grant, once it is there. */
    const again = (attempt: Attempt): Effect.Effect<Grant, LockBackendError> =>
      Effect.suspend(() => {
        const { session } = attempt
        if (attempt.voided) {
          return givenBack
        }
        if (attempt.asking && (attempt.stage !== "held" || attempt.token === undefined)) {
          attempt.outcome ??= Deferred.makeUnsafe()
          return Deferred.await(attempt.outcome)
        }
        if (attempt.stage !== "held" || session === undefined) {
          return undecided
        }
        return MysqlSession.refresh(session, attempt).pipe(
          Effect.mapError((error) => toBackendError("acquire", error)),
          Effect.andThen(Effect.suspend(() => attempt.stage === "held" ? grant(attempt, session) : givenBack))
        )
      })

    /** Begins the attempt of a request, and tells its outcome to whoever sent it again. */
    const begin = <A>(
      request: LockRequest,
      run: (attempt: Attempt) => Effect.Effect<A, LockBackendError>,
      tell: (a: A) => Effect.Effect<Grant, LockBackendError>
    ): Effect.Effect<A, LockBackendError> =>
      Effect.suspend(() => {
        if (voided.has(request)) {
          return givenBack
        }
        const attempt = attempts.begin(
          request,
          MysqlName.of(keyPrefix, request.key),
          MysqlSession.secondsFor(request.ttl)
        )
        return Effect.onExit(run(attempt), (exit) =>
          Effect.sync(() => {
            attempt.asking = false
            if (attempt.outcome !== undefined) {
              Deferred.doneUnsafe(attempt.outcome, Exit.isSuccess(exit) ? tell(exit.value) : failed(exit))
            }
          }))
      })

    const tryAcquire: Verbs["tryAcquire"] = (request) =>
      Effect.suspend(() => {
        const known = attempts.get(request.owner)
        if (known !== undefined) {
          return known.waited && known.stage !== "held" ? Effect.succeedNone : Effect.asSome(again(known))
        }
        return begin(
          request,
          (attempt) =>
            Effect.flatMap(take(attempt), (session): Effect.Effect<Option.Option<Grant>, LockBackendError> => {
              if (session !== undefined) {
                return Effect.asSome(grant(attempt, session))
              }
              attempts.finish(attempt)
              return Effect.succeedNone
            }),
          Option.match({ onNone: () => givenBack, onSome: (grant) => Effect.succeed(grant) })
        )
      })

    const acquire: Verbs["acquire"] = (request) =>
      Effect.suspend(() => {
        const known = attempts.get(request.owner)
        if (known !== undefined) {
          return again(known)
        }
        return begin(
          request,
          (attempt) =>
            // Where there is a line, a try would only be one more statement before the wait.
            Effect.flatMap(attempts.hasLine(attempt.name) ? heldElsewhere : take(attempt), (session) =>
              session !== undefined
                ? grant(attempt, session)
                : Effect.flatMap(line.wait(attempt), (session) => grant(attempt, session))),
          (grant) => Effect.succeed(grant)
        )
      })

    const renew: Verbs["renew"] = (request) =>
      Effect.suspend(() => {
        const attempt = attempts.get(request.owner)
        const session = attempt?.session
        if (attempt?.stage !== "held" || session === undefined) {
          return Effect.succeedNone
        }
        return MysqlSession.refresh(session, attempt).pipe(
          Effect.catch((error) => attempt.stage === "held" ? Effect.fail(toBackendError("renew", error)) : Effect.void),
          Effect.map(() => attempt.stage === "held" ? Option.some(MysqlSession.validity(session)) : Option.none())
        )
      })

    const giveBackHeld = (attempt: Attempt, session: Session): Effect.Effect<boolean, LockBackendError> =>
      Effect.matchEffect(line.release(attempt, session).await, {
        onSuccess: (cell) => Effect.succeed(cell === "1"),
        // The session took everything it held with it.
        onFailure: (error) =>
          session.connection.isOpen() ? Effect.fail(toBackendError("release", error)) : Effect.succeed(false)
      })

    // Goes on by itself, so that who asks a second time finds it under way.
    const giveBack = (attempt: Attempt): Effect.Effect<boolean, LockBackendError> => {
      const result = Deferred.makeUnsafe<boolean, LockBackendError>()
      fork(
        line.leave(attempt).pipe(
          Effect.catch((error) =>
            attempt.session?.connection.isOpen() === true
              ? Effect.fail(toBackendError("release", error))
              : Effect.succeed(false)
          ),
          Effect.onExit((exit) =>
            Effect.sync(() => {
              if (Exit.isSuccess(exit)) {
                attempts.finish(attempt)
              } else {
                attempt.release = undefined
              }
              Deferred.doneUnsafe(result, exit)
            })
          ),
          Effect.ignore
        )
      )
      return Effect.timeoutOrElse(Deferred.await(result), {
        duration: Duration.min(patience, Duration.seconds(attempt.seconds)),
        orElse: () => Effect.fail(toBackendError("release", stalled()))
      })
    }

    const release: Verbs["release"] = (request) =>
      Effect.suspend(() => {
        voided.add(request)
        const attempt = attempts.get(request.owner)
        if (attempt === undefined) {
          return Effect.succeed(false)
        }
        attempt.voided = true
        attempt.release ??= attempt.stage === "held" && attempt.session !== undefined
          ? giveBackHeld(attempt, attempt.session)
          : giveBack(attempt)
        return attempt.release
      })

    return { tryAcquire, acquire, renew, release }
  }
)
