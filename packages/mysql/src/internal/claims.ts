/**
 * What is asked for one request on one session: the lock if it is free, and its release.
 */
import type { Released } from "@dlock/core"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import { closed, isDeadlock, type MysqlError, notConnected } from "./errors.ts"
import * as Requests from "./requests.ts"
import type { Claim, Session } from "./session.ts"
import { bind, finish, unbind } from "./session.ts"
import type { Sessions } from "./sessions.ts"
import { findIdle, openShared, shared } from "./sessions.ts"
import type { Source } from "./tokens.ts"

/** How often a session is opened or asked for one request, if sessions keep ending. */
const mostTries = 6

/** The answer to GET_LOCK is there. */
export const onGranted = (
  claim: Claim,
  session: Session,
  exit: Exit.Exit<string | null, MysqlError>,
  source: Source
) => {
  if (claim.stage !== "asked") {
    return
  }
  if (Exit.isSuccess(exit) && exit.value !== null) {
    claim.stage = "held"
    claim.tokens = source.read(exit.value, claim.request.spare)
  } else if (Exit.isSuccess(exit) || !session.connection.isOpen()) {
    claim.stage = "idle"
    unbind(claim)
  }
}

/**
 * Takes the lock on the shared session if it is free; `true` when it was. The statements of a session are executed in
 * order, so one that comes while the lock is being released there stands right behind the release.
 */
export const take = (
  sessions: Sessions,
  claim: Claim,
  source: Source,
  tries = 1
): Effect.Effect<boolean, MysqlError> => {
  const again = Effect.suspend(() => take(sessions, claim, source, tries + 1))
  const session = shared(sessions, claim.seconds)
  if (session === undefined) {
    return tries < mostTries
      ? Effect.andThen(openShared(sessions, claim.seconds), again)
      : Effect.fail(notConnected("the server ends every session"))
  }
  const rival = session.names.get(claim.name)
  if (rival !== undefined && rival.stage !== "releasing") {
    return Effect.succeed(false)
  }
  bind(claim, session)
  claim.stage = "asked"
  claim.ask = session.connection.ask(
    Requests.take(claim.name, () => source.expression(claim.request.spare)),
    (exit) => onGranted(claim, session, exit, source)
  )
  return Effect.matchEffect(claim.ask.await, {
    // It is ours; or was, if its session ended just now, and its owner knows.
    onSuccess: (cell) => Effect.succeed(cell !== null),
    onFailure: (error) => {
      // A lock that is held elsewhere can look like a deadlock to a session that holds others, even without a wait.
      if (isDeadlock(error)) {
        claim.stage = "idle"
        unbind(claim)
        return Effect.succeed(false)
      }
      // What was asked of a session that ended is not held; so it may be asked of another one.
      return session.connection.isOpen() || error.code === "DLOCK_STALLED" || tries >= mostTries
        ? Effect.fail(error)
        : again
    }
  })
}

/**
 * Releases what the request holds or may hold on its session, in the order of the session's statements. The effect waits
 * for the answer, and may be run again.
 */
const askRelease = (claim: Claim, session: Session): Effect.Effect<Released, MysqlError> => {
  const { connection, names, place } = session
  claim.stage = "releasing"
  const ask = connection.ask(Requests.release(claim.name), (exit) => {
    if (Exit.isSuccess(exit) || !connection.isOpen()) {
      finish(claim)
    } else if (names.get(claim.name) === claim) {
      claim.stage = "held"
      claim.release = undefined
      claim.refused = true
    } else {
      // What stands behind this release would take over a lock that was not released.
      connection.close(closed("a lock could not be released"))
    }
  })
  if (place !== undefined) {
    // The next request of this program waits for the answer, so nothing goes out together with it.
    connection.flush()
  }
  return Effect.matchEffect(ask.await, {
    // A release that was refused may have been executed, and then the next one finds nothing.
    onSuccess: (cell) => Effect.succeed(cell === "1" ? "released" : ask.alone || claim.refused ? "unknown" : "gone"),
    // The session may have ended before the release, or took the lock with it after it.
    onFailure: (error) => connection.isOpen() ? Effect.fail(error) : Effect.succeed("unknown")
  })
}

/**
 * Gives up a wait by closing its connection. The server may grant the lock to the session until it has ended it, and lets
 * nothing else have the lock then; so the release is answered when the server does not know the session any more. KILL
 * wakes the session, and fails when its locks are released. Without KILL the server notices within a second or two.
 */
const giveUp = (sessions: Sessions, claim: Claim, session: Session): Effect.Effect<Released> => {
  claim.stage = "over"
  session.connection.close(closed("the wait was given up"))
  const since = sessions.timers.now()
  const kill = Effect.suspend(() => {
    // Through a session that is older: after a restart of the server the number could be another session's.
    const idle = findIdle(sessions, since)
    return idle === undefined
      ? Effect.fail(notConnected("no session is idle"))
      : idle.connection.run(Requests.kill(session.id)).await
  })
  return kill.pipe(
    Effect.repeat(Schedule.exponential("1 millis")),
    Effect.timeoutOption(sessions.settings.patience),
    Effect.ignore,
    Effect.as("unknown")
  )
}

/** Releases the request, whatever became of it. */
export const release = (sessions: Sessions, claim: Claim): Effect.Effect<Released, MysqlError> =>
  Effect.suspend(() => {
    const { ask, session, stage } = claim
    if (claim.release !== undefined) {
      return claim.release
    }
    if (session === undefined || stage === "idle" || stage === "over") {
      finish(claim)
      return Effect.succeed("gone")
    }
    if (stage === "asked" && ask?.withdraw() === true) {
      finish(claim)
      return Effect.succeed("gone")
    }
    if (stage === "asked" && session.place !== undefined) {
      claim.release = giveUp(sessions, claim, session)
      return claim.release
    }
    claim.release = askRelease(claim, session)
    return claim.release
  })
