/**
 * Waiting: one GET_LOCK that blocks on the server, on a session of its own. The server's line is first come, first
 * served, and gives the lock to its head in the step that releases it, so no request overtakes another.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { onGranted, take } from "./claims.ts"
import {
  closed,
  deserted,
  fromDriver,
  isCrowded,
  isDeadlock,
  isFull,
  isInterrupted,
  isPassing,
  type MysqlError,
  refused,
  stalled
} from "./errors.ts"
import * as Requests from "./requests.ts"
import { becameReadOnly, readState } from "./server.ts"
import { bind, type Claim, isAlive, type Place, type Session, unbind } from "./session.ts"
import * as Sessions from "./sessions.ts"
import type { Source } from "./tokens.ts"

/** What waits in the server's lines. */
export interface Waiting {
  readonly sessions: Sessions.Sessions
  readonly source: Source
  /** The sessions that wait. */
  readonly blocked: Set<Session>
  /** Open while there may be one. */
  readonly busy: Latch.Latch
  /** The requests that wait for a connection to wait on, first come, first served. */
  readonly line: Array<Place>
  /** How many places have a connection, or may have one. */
  placed: number
}

/** A wait that the server ends at once for so many times in a row will not come to an end. */
const most = 10

/** How often a request that waits for a connection tries the lock without one. */
const pollEvery = "1 second"

/** Tokens for the turn of this program: when the lock comes, others may wait for it here, too. */
const spare = 63

/** How many sessions may wait: one is left for what is free, and pools of threads need threads for the others. */
const places = ({ sessions: { all, settings } }: Waiting): number => {
  const threads = Math.min(...[...all].map(({ server }) => Math.floor(server.threads / 2)))
  return Math.max(1, Math.min(threads, settings.connectionLimit - (settings.table === undefined ? 1 : 2)))
}

const serve = (waiting: Waiting): void => {
  const limit = places(waiting)
  while (waiting.placed < limit) {
    const place = waiting.line.shift()
    if (place === undefined) {
      return
    }
    waiting.placed++
    place.state = "ready"
    Deferred.doneUnsafe(place.ready, Exit.void)
  }
}

/** Gets in line for a connection to wait on. */
const enter = (waiting: Waiting): Place => {
  const place: Place = {
    ready: Deferred.makeUnsafe(),
    state: "waiting",
    leave: () => {
      if (place.state === "ready") {
        waiting.placed--
      } else if (place.state === "waiting") {
        waiting.line.splice(waiting.line.indexOf(place), 1)
      }
      place.state = "left"
      serve(waiting)
    }
  }
  waiting.line.push(place)
  serve(waiting)
  return place
}

/** A request of this program waits for the name on the server, or has waited for it. */
export const hasLine = ({ sessions }: Waiting, name: string): boolean =>
  [...sessions.all].some(({ names, place }) => place !== undefined && names.has(name))

/** A session of this program on which the name is being released: a wait may stand right behind the release. */
const sessionBehind = ({ sessions }: Waiting, { name, seconds }: Claim): Session | undefined =>
  [...sessions.all].find((session) =>
    session.place !== undefined && session.seconds === seconds && isAlive(session) &&
    session.names.get(name)?.stage === "releasing"
  )

/** A lack of connections passes; so does most of what is refused while servers are exchanged. */
const mayPass = (error: MysqlError): boolean => isCrowded(error) || isPassing(error)

const openFor = (sessions: Sessions.Sessions, claim: Claim, place: Place): Effect.Effect<void, MysqlError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.map(restore(Sessions.open(sessions, claim.seconds)), (session) => {
      session.place = place
      bind(claim, session)
    })
  )

/**
 * Waits until the request has a session to wait on, first come, first served. Meanwhile it asks now and then whether the
 * lock is free, because those before it may keep their connections for long.
 */
const takePlace = Effect.fnUntraced(function*(waiting: Waiting, claim: Claim, place: Place) {
  while (true) {
    if (place.state === "waiting") {
      yield* Effect.timeoutOption(Deferred.await(place.ready), pollEvery)
    }
    if (place.state === "ready") {
      const opened = yield* Effect.result(openFor(waiting.sessions, claim, place))
      if (Result.isSuccess(opened)) {
        return
      }
      if (!mayPass(opened.failure)) {
        return yield* opened.failure
      }
      yield* Effect.sleep(pollEvery)
    }
    const taken = take(waiting.sessions, claim, waiting.source)
    if (yield* Effect.catchIf(taken, mayPass, () => Effect.succeed(false))) {
      return
    }
  }
})

/** The wait was ended from outside, or its session was; the request goes to the end of the line. */
const again = (
  waiting: Waiting,
  claim: Claim,
  since: number,
  refusals: number,
  error: MysqlError
): Effect.Effect<void, MysqlError> =>
  Effect.suspend(() => {
    const inARow = waiting.sessions.timers.now() - since > 1000 ? 1 : refusals + 1
    return inARow > most
      ? Effect.fail(error)
      : Effect.andThen(Effect.sleep(2 ** inARow), wait(waiting, claim, inARow))
  })

const stand = (
  waiting: Waiting,
  claim: Claim,
  session: Session,
  refusals: number
): Effect.Effect<void, MysqlError> => {
  const since = waiting.sessions.timers.now()
  claim.stage = "asked"
  waiting.blocked.add(session)
  waiting.busy.openUnsafe()
  claim.ask = session.connection.askPatiently(
    Requests.wait(claim.name, waiting.source.expression(spare)),
    (exit) => {
      waiting.blocked.delete(session)
      onGranted(claim, session, exit, waiting.source)
    }
  )
  return Effect.matchEffect(claim.ask.await, {
    // It is ours; or was, if its session ended just now, and its owner knows.
    onSuccess: (cell) =>
      cell !== null
        ? Effect.void
        : again(waiting, claim, since, refusals, refused("the server keeps ending the wait")),
    onFailure: (error) => {
      if (error.code === "DLOCK_DESERTED") {
        return Effect.fail(error)
      }
      if (isInterrupted(error)) {
        // The server may have granted the lock just before; it goes with the session.
        session.connection.close(closed("the server ended the wait"))
      }
      if (isInterrupted(error) || isDeadlock(error)) {
        claim.stage = "idle"
        unbind(claim)
      }
      return claim.stage === "idle" ? again(waiting, claim, since, refusals, error) : Effect.fail(error)
    }
  })
}

/** Complete when the request holds its lock. */
export const wait = (waiting: Waiting, claim: Claim, refusals = 0): Effect.Effect<void, MysqlError> =>
  Effect.suspend(() => {
    const behind = sessionBehind(waiting, claim)
    if (behind !== undefined) {
      bind(claim, behind)
      return stand(waiting, claim, behind, refusals)
    }
    const place = enter(waiting)
    return takePlace(waiting, claim, place).pipe(
      Effect.onExit(() =>
        Effect.sync(() => {
          if (claim.session?.place !== place) {
            place.leave()
          }
        })
      ),
      Effect.flatMap(() => {
        const { session } = claim
        return claim.stage === "held" || session === undefined
          ? Effect.void
          : stand(waiting, claim, session, refusals)
      })
    )
  })

/** Ends every wait: the server does not answer, so it would not tell of a grant either. */
const desert = ({ blocked }: Waiting, error: MysqlError): void => {
  blocked.forEach(({ connection }) => connection.close(deserted(error.message)))
}

/**
 * Asks whether the server still answers, because a session inside GET_LOCK cannot say so. One connection that does not
 * answer says nothing about the server; then a new one is asked.
 */
const look = (waiting: Waiting, limit: number): Effect.Effect<void> => {
  const { sessions } = waiting
  const ask = Sessions.askIdle(
    sessions,
    ({ connection, server }) => connection.ask(Requests.state(server.readOnly))
  )
  return ask.pipe(
    Effect.timeoutOrElse({ duration: limit, orElse: () => Effect.fail(stalled()) }),
    Effect.flatMap((cell) =>
      readState(cell).isReadOnly && !sessions.settings.allowReadOnly ? Effect.fail(becameReadOnly) : Effect.void
    ),
    Effect.catch(() => Sessions.reach(sessions, limit)),
    // A server that is out of connections is there. After a defect nothing is known, and no wait may go on unwatched.
    Effect.catchCause((cause) =>
      Effect.sync(() => {
        const error = Result.getOrElse(Cause.findError(cause), () => fromDriver(Cause.squash(cause)))
        return isCrowded(error) && !isFull(error) || desert(waiting, error)
      })
    ),
    Effect.asVoid
  )
}

export const make = Effect.fnUntraced(
  function*(sessions: Sessions.Sessions, source: Source): Effect.fn.Return<Waiting, never, Scope.Scope> {
    const busy = yield* Latch.make(false)
    const waiting: Waiting = { sessions, source, blocked: new Set(), busy, line: [], placed: 0 }
    // A third of the command timeout between two looks, and two thirds for a look: a wait ends within it.
    const third = Math.max(1, Math.floor(sessions.settings.patience / 3))
    yield* busy.await.pipe(
      Effect.andThen(Effect.sleep(third)),
      Effect.andThen(Effect.suspend(() => {
        if (waiting.blocked.size > 0) {
          return look(waiting, third)
        }
        busy.closeUnsafe()
        return Effect.void
      })),
      Effect.forever,
      Effect.forkScoped
    )
    return waiting
  }
)
