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
   * line. `held`: ours. `doubtful`: refused with an error that says nothing about the lock. `releasing`: its
   * RELEASE_LOCK stands in the queue of its session or is under way. `over`: given back or lost.
   */
  stage: "idle" | "taking" | "waiting" | "held" | "doubtful" | "releasing" | "over"
  /** It stands in the server's line, or stood there. */
  waited: boolean
  /** The session that it is under way or held on. */
  session: Session | undefined
  /** The GET_LOCK under way, or the last one. */
  ask: Ask<string | null> | undefined
  token: bigint | undefined
  /** What the request that is under way comes to, if it was sent again meanwhile. */
  outcome: Deferred.Deferred<Grant, LockBackendError> | undefined
  /** It was given back, whether that is done or not; nothing is asked for any more. */
  voided: boolean
  /** The give-back, as long as it may succeed. */
  release: Effect.Effect<boolean, LockBackendError> | undefined
  /** Forgets it, and tells its owner why. */
  readonly lose: (reason: LossReason) => void
}

export interface Attempts {
  readonly get: (owner: string) => Attempt | undefined
  readonly begin: (request: LockRequest, name: string, seconds: number) => Attempt
  /** Somebody else in this program waits for the same name or has waited for it, so there is a line on the server. */
  readonly hasLine: (attempt: Attempt) => boolean
  /** From here on the name is this attempt's on `session`. One that is being released there goes before it. */
  readonly bind: (attempt: Attempt, session: Session) => void
  readonly unbind: (attempt: Attempt) => void
  /** It is over, and nothing of it is left. */
  readonly finish: (attempt: Attempt) => void
}

/** `onVacant` learns of sessions on which nothing is left. */
export const make = (onVacant: (session: Session) => void): Attempts => {
  const byOwner = new Map<string, Attempt>()
  const byName = new Map<string, Set<Attempt>>()

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
    const rivals = byName.get(attempt.name)
    rivals?.delete(attempt)
    if (rivals?.size === 0) {
      byName.delete(attempt.name)
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
        waited: false,
        session: undefined,
        ask: undefined,
        token: undefined,
        outcome: undefined,
        voided: false,
        release: undefined,
        lose: (reason) => {
          const wanted = attempt.stage === "held" && !attempt.voided
          finish(attempt)
          if (wanted) {
            request.onLost(reason)
          }
        }
      }
      byOwner.set(request.owner, attempt)
      const rivals = byName.get(name)
      if (rivals === undefined) {
        byName.set(name, new Set([attempt]))
      } else {
        rivals.add(attempt)
      }
      return attempt
    },
    hasLine: (attempt) => {
      for (const rival of byName.get(attempt.name) ?? []) {
        if (rival !== attempt && rival.waited) {
          return true
        }
      }
      return false
    },
    bind: (attempt, session) => {
      session.names.set(attempt.name, attempt)
      attempt.session = session
    },
    unbind,
    finish
  }
}
