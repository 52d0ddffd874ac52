/**
 * One attempt to hold a key, how far it got, and who else in this program attempts the same.
 */
import type { Grant, LockBackendError, LockRequest, LossReason } from "@dlock/core"
import type * as Deferred from "effect/Deferred"
import type * as Effect from "effect/Effect"
import type { Ask } from "./MysqlAsk.ts"
import type { Session } from "./MysqlSession.ts"

export class Attempt {
  readonly request: LockRequest
  readonly name: string
  /** The `wait_timeout` of the session it wants. */
  readonly seconds: number
  /**
   * `idle`: nothing is under way and nothing is held. `taking`: asked for without waiting. `waiting`: in the server's
   * line. `held`: ours. `doubtful`: refused with an error that says nothing about the lock. `releasing`: its
   * RELEASE_LOCK stands in the queue of its session or is under way. `over`: given back or lost.
   */
  stage: "idle" | "taking" | "waiting" | "held" | "doubtful" | "releasing" | "over" = "idle"
  /** It stands in the server's line, or stood there. */
  waited = false
  /** The session that it is under way or held on. */
  session: Session | undefined
  /** The GET_LOCK under way, or the last one. */
  ask: Ask<string | null> | undefined
  token: bigint | undefined
  /** The request that began it is under way. */
  asking = true
  /** What that comes to, if it was sent again meanwhile. */
  outcome: Deferred.Deferred<Grant, LockBackendError> | undefined
  /** It was given back, whether that is done or not; nothing is asked for any more. */
  voided = false
  /** The give-back, as long as it may succeed. */
  release: Effect.Effect<boolean, LockBackendError> | undefined

  private readonly finish: (attempt: Attempt) => void

  constructor(request: LockRequest, name: string, seconds: number, finish: (attempt: Attempt) => void) {
    this.request = request
    this.name = name
    this.seconds = seconds
    this.finish = finish
  }

  /** Finishes it, and tells its owner why. */
  lose(reason: LossReason): void {
    const wanted = this.stage === "held" && !this.voided
    this.finish(this)
    if (wanted) {
      this.request.onLost(reason)
    }
  }
}

export interface Attempts {
  readonly get: (owner: string) => Attempt | undefined
  readonly begin: (request: LockRequest, name: string, seconds: number) => Attempt
  /** It goes to the server's line. */
  readonly lineUp: (attempt: Attempt) => void
  /** Somebody in this program waits for the name or has waited for it, so there is a line on the server. */
  readonly hasLine: (name: string) => boolean
  /** From here on the name is this attempt's on `session`. One that is being released there goes before it. */
  readonly bind: (attempt: Attempt, session: Session) => void
  readonly unbind: (attempt: Attempt) => void
  /** It is over, and nothing of it is left. */
  readonly finish: (attempt: Attempt) => void
}

/** `onVacant` learns of sessions on which nothing is left. */
export const make = (onVacant: (session: Session) => void): Attempts => {
  const byOwner = new Map<string, Attempt>()
  /** How many of a name stand in the server's line or stood there. */
  const lines = new Map<string, number>()

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
    if (attempt.waited) {
      const left = (lines.get(attempt.name) ?? 1) - 1
      if (left === 0) {
        lines.delete(attempt.name)
      } else {
        lines.set(attempt.name, left)
      }
    }
  }

  return {
    get: (owner) => byOwner.get(owner),
    begin: (request, name, seconds) => {
      const attempt = new Attempt(request, name, seconds, finish)
      byOwner.set(request.owner, attempt)
      return attempt
    },
    lineUp: (attempt) => {
      if (!attempt.waited) {
        attempt.waited = true
        lines.set(attempt.name, (lines.get(attempt.name) ?? 0) + 1)
      }
    },
    hasLine: (name) => lines.has(name),
    bind: (attempt, session) => {
      session.names.set(attempt.name, attempt)
      attempt.session = session
    },
    unbind,
    finish
  }
}
