/**
 * One attempt to hold a key, how far it got, and who else in this program attempts the same.
 */
import type { Grant, LockBackendError, LockRequest, LossReason } from "@dlock/core"
import type * as Deferred from "effect/Deferred"
import type * as Effect from "effect/Effect"
import type { Ask } from "./MysqlConnection.ts"
import type { Session } from "./MysqlSession.ts"

export interface Attempt {
  readonly request: LockRequest
  readonly name: string
  /** The `wait_timeout` of the session it wants. */
  readonly seconds: number
  /**
   * `idle`: nothing is under way and nothing is held. `taking`: asked for without waiting. `waiting`: in the server's
   * line. `held`: ours. `doubtful`: refused with an error that says nothing about the lock. `over`: given back or lost.
   */
  stage: "idle" | "taking" | "waiting" | "held" | "doubtful" | "over"
  /** The session that it is under way or held on. */
  session: Session | undefined
  /** The GET_LOCK under way, or the last one. */
  ask: Ask<string | null> | undefined
  token: bigint | undefined
  /** What the request that is under way comes to, if it was sent again meanwhile. */
  outcome: Deferred.Deferred<Grant, LockBackendError> | undefined
  /** The give-back. Once there is one, nothing is asked for any more. */
  release: Effect.Effect<boolean, LockBackendError> | undefined
  /** Forgets it, and tells its owner why. */
  readonly lose: (reason: LossReason) => void
}

export interface Attempts {
  readonly get: (owner: string) => Attempt | undefined
  readonly begin: (request: LockRequest, name: string, seconds: number) => Attempt
  /** Somebody else in this program holds, takes or awaits the same name. */
  readonly hasRival: (attempt: Attempt) => boolean
  /** From here on `session` neither has the name for anybody else nor is asked for it. */
  readonly bind: (attempt: Attempt, session: Session) => void
  readonly unbind: (attempt: Attempt) => void
  /** It is over, and nothing of it is left. */
  readonly finish: (attempt: Attempt) => void
}

/** `onVacant` learns of sessions on which nothing is left. */
export const make = (onVacant: (session: Session) => void): Attempts => {
  const byOwner = new Map<string, Attempt>()
  const rivals = new Map<string, number>()

  const unbind = (attempt: Attempt): void => {
    const { name, session } = attempt
    attempt.session = undefined
    if (session?.names.get(name) === attempt) {
      session.names.delete(name)
      if (session.names.size === 0) {
        onVacant(session)
      }
    }
  }

  const finish = (attempt: Attempt): void => {
    unbind(attempt)
    if (attempt.stage === "over") {
      return
    }
    attempt.stage = "over"
    byOwner.delete(attempt.request.owner)
    const left = (rivals.get(attempt.name) ?? 1) - 1
    if (left === 0) {
      rivals.delete(attempt.name)
    } else {
      rivals.set(attempt.name, left)
    }
  }

  return {
    get: (owner) => byOwner.get(owner),
    begin: (request, name, seconds) => {
      const attempt: Attempt = {
        request,
        name,
        seconds,
        stage: "idle",
        session: undefined,
        ask: undefined,
        token: undefined,
        outcome: undefined,
        release: undefined,
        lose: (reason) => {
          const wanted = attempt.stage === "held" && attempt.release === undefined
          finish(attempt)
          if (wanted) {
            request.onLost(reason)
          }
        }
      }
      byOwner.set(request.owner, attempt)
      rivals.set(name, (rivals.get(name) ?? 0) + 1)
      return attempt
    },
    hasRival: (attempt) => (rivals.get(attempt.name) ?? 0) > 1,
    bind: (attempt, session) => {
      session.names.set(attempt.name, attempt)
      attempt.session = session
    },
    unbind,
    finish
  }
}
