/**
 * Which session takes what: one shared session per `wait_timeout` for locks that are free, one session per wait, and
 * the empty ones, which are used again.
 */
import type { LockBackendError } from "@dlock/core"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Connection } from "./MysqlConnection.ts"
import { type Dial, within } from "./MysqlDial.ts"
import { closed, type MysqlError, stalled, toBackendError } from "./MysqlError.ts"
import { grown, setUp } from "./MysqlServer.ts"
import * as MysqlSession from "./MysqlSession.ts"
import type { Session } from "./MysqlSession.ts"

export interface Sessions {
  /** The session that takes free locks, if there is one. Good in this very step: Effect may yield between any two. */
  readonly shared: (seconds: number) => Session | undefined
  /** Waits until there is one; it may be gone again. */
  readonly openShared: (seconds: number) => Effect.Effect<void, LockBackendError>
  /** A session for one wait; nobody else puts anything on it until it is vacant. */
  readonly dedicated: (seconds: number) => Effect.Effect<Session, LockBackendError>
  /** `session` holds and awaits nothing any more. */
  readonly vacate: (session: Session) => void
}

/** A vacant session is closed after this time; the server closes it sooner if its `wait_timeout` is shorter. */
const idleFor = Duration.seconds(30)

const second = 1_000_000_000n

const discard = (session: Session): Effect.Effect<void> =>
  Effect.sync(() => session.connection.close(closed("it was not needed any more")))

/** `prepare` is run once, on the first connection. */
export const make = Effect.fnUntraced(
  function*(
    dial: Dial,
    patience: Duration.Duration,
    prepare: (connection: Connection) => Effect.Effect<void, MysqlError>
  ): Effect.fn.Return<Sessions, LockBackendError, Scope.Scope> {
    const scope = yield* Effect.scope
    const clock = yield* Clock.Clock
    const run = Effect.runForkWith(yield* Effect.context<never>())
    /** From a callback, into the layer's scope. */
    const fork = (effect: Effect.Effect<void>): void => {
      run(Effect.forkIn(effect, scope))
    }
    const all = new Set<Session>()
    /** By `wait_timeout`. */
    const current = new Map<number, Session>()
    const opening = new Map<number, Deferred.Deferred<void, LockBackendError>>()
    /** Vacant, and not among the current ones. The last ones are used first, so that the others can be closed. */
    const parked = new Set<Session>()

    const patienceFor = (seconds: number) =>
      seconds === 0 ? patience : Duration.min(patience, Duration.seconds(seconds))

    /** Nobody gets it any more. */
    const retire = (session: Session): void => {
      parked.delete(session)
      if (current.get(session.seconds) === session) {
        current.delete(session.seconds)
      }
    }

    const onClose = (session: Session): void => {
      all.delete(session)
      retire(session)
      MysqlSession.lose(session, "session")
    }

    /** Until the server must have ended a session whose answer is overdue, the answer may come. */
    const expire = (session: Session): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (!session.connection.isStalled()) {
          return Effect.void
        }
        const end = session.connection.answeredFrom() + BigInt(session.seconds) * second
        const left = end - clock.monotonicTimeNanosUnsafe()
        return left > 0n
          ? Effect.andThen(Effect.sleep(Duration.nanos(left)), expire(session))
          : Effect.sync(() => session.connection.close(stalled()))
      })

    // What it holds stays, and others renew meanwhile.
    const onStall = (session: Session): void => {
      retire(session)
      if ([...session.names.values()].some((attempt) => attempt.stage === "held")) {
        fork(expire(session))
      } else {
        session.connection.close(stalled())
      }
    }

    const connect = (seconds: number): Effect.Effect<Session, LockBackendError> =>
      Effect.suspend(() => {
        let session: Session | undefined
        return dial.open(patienceFor(seconds), {
          onClose: () => session && onClose(session),
          onStall: () => session && onStall(session)
        }, ({ connection, server }) => {
          session = MysqlSession.make(connection, server)
          all.add(session)
          return session
        })
      })

    /** A vacant session, if there is one. Those that the server may be ending just now are ended. */
    const reuse = (seconds: number): Session | undefined => {
      const now = clock.monotonicTimeNanosUnsafe()
      for (const session of parked) {
        if (MysqlSession.isStale(session, now)) {
          session.connection.close(closed("it was idle for too long"))
        }
      }
      const vacant = dial.isFull() ? [...current.values(), ...parked] : [...parked]
      const good = vacant.filter((session) => MysqlSession.isReusable(session, now))
      const session = good.findLast((session) => session.seconds === seconds) ?? good.at(-1)
      if (session !== undefined) {
        retire(session)
      }
      return session
    }

    const tune = (session: Session, seconds: number): Effect.Effect<Session, LockBackendError> => {
      session.connection.setPatience(patienceFor(seconds))
      return session.connection.run(setUp(session.server, seconds)).await.pipe(
        Effect.mapError((error) => toBackendError("connect", error)),
        Effect.onError(() => discard(session)),
        Effect.map(() => {
          session.seconds = seconds
          return session
        })
      )
    }

    const openNew = (seconds: number): Effect.Effect<Session, LockBackendError> =>
      connect(seconds).pipe(
        Effect.flatMap((session) => tune(session, seconds)),
        within(patienceFor(seconds)),
        Effect.tap((session) => Effect.onError(grown(session.connection), () => discard(session)))
      )

    const open = (seconds: number): Effect.Effect<Session, LockBackendError> =>
      Effect.suspend(() => {
        const session = reuse(seconds)
        if (session === undefined) {
          return openNew(seconds)
        }
        return session.seconds === seconds
          ? Effect.succeed(session)
          // It may have ended unseen while it was vacant.
          : Effect.catchIf(tune(session, seconds), (error) => error.reason === "Unreachable", () => openNew(seconds))
      })

    const openCurrent = (seconds: number, result: Deferred.Deferred<void, LockBackendError>): Effect.Effect<void> =>
      Effect.onExit(open(seconds), (exit) =>
        Effect.sync(() => {
          opening.delete(seconds)
          if (Exit.isSuccess(exit) && exit.value.connection.isOpen()) {
            current.set(seconds, exit.value)
          }
          Deferred.doneUnsafe(result, Exit.asVoid(exit))
        })).pipe(Effect.ignore)

    // One that was lost between two steps of an interrupted attempt is found here, too.
    const sweep = Effect.sync(() => {
      const now = clock.monotonicTimeNanosUnsafe()
      for (const session of all) {
        const idle = now - session.connection.answeredFrom() > Duration.toNanosUnsafe(idleFor)
        if (idle && session.names.size === 0 && session.connection.isQuiet()) {
          retire(session)
          fork(session.connection.quit)
        }
      }
    })
    yield* Effect.forkScoped(Effect.schedule(sweep, Schedule.spaced(Duration.divideUnsafe(idleFor, 3))))

    // The layer is not built when the server can not be reached, or can not carry locks.
    const first = yield* connect(0).pipe(
      Effect.tap(({ connection }) => Effect.mapError(prepare(connection), (error) => toBackendError("connect", error))),
      within(patience),
      Effect.tap((session) => grown(session.connection))
    )
    parked.add(first)

    return {
      vacate: (session) => {
        if (session.connection.isOpen() && session.names.size === 0 && current.get(session.seconds) !== session) {
          parked.add(session)
        }
      },
      shared: (seconds) => {
        const session = current.get(seconds)
        if (session === undefined || session.names.size > 0) {
          return session
        }
        if (MysqlSession.isStale(session, clock.monotonicTimeNanosUnsafe())) {
          session.connection.close(closed("it was idle for too long"))
          return undefined
        }
        return session
      },
      openShared: (seconds) =>
        Effect.suspend(() => {
          const pending = opening.get(seconds)
          if (pending !== undefined) {
            return Deferred.await(pending)
          }
          // By itself: who asked first may be interrupted, and others want it, too.
          const result = Deferred.makeUnsafe<void, LockBackendError>()
          opening.set(seconds, result)
          run(openCurrent(seconds, result))
          return Deferred.await(result)
        }),
      dedicated: open
    }
  }
)
