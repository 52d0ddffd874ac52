import type { Grant, LockRequest } from "@dlock/core/LockBackend"
import type { LockBackendError, LossReason } from "@dlock/core/LockError"
import * as Duration from "effect/Duration"
import type * as Fiber from "effect/Fiber"
import type * as Option from "effect/Option"
import * as EtcdKeys from "./EtcdKeys.ts"
import type { Member, Session } from "./EtcdSession.ts"
import type { Spot } from "./EtcdTxn.ts"
import type { Watch } from "./EtcdWatch.ts"

/**
 * What is known of one attempt to hold a key. Ten thousand of them are kept while ten thousand locks are held, so it
 * has no closures of its own.
 */
export class Attempt implements Member {
  readonly request: LockRequest
  session: Session | undefined
  /** Its create revision, while its key is known to exist. */
  revision: bigint | undefined
  state: "asking" | "waiting" | "held" | "lost" = "asking"
  /** The giving back has begun; from then on nothing is taken. */
  over = false
  /** The giving back was answered. */
  returned = false
  /** A request was sent that may still put its key. */
  doubtful = false
  /** A request was sent that may have removed its key. */
  left = false
  /** Its key is gone, or the session that it was on. */
  displaced = false
  /** Asks for the key, for as long as somebody wants it: also on behalf of a caller that was interrupted. */
  asking: Fiber.Fiber<Option.Option<Grant>, LockBackendError> | undefined
  /** Wakes the fiber that waits in line. */
  wake: (() => void) | undefined
  /** The watch on its own key. */
  guard: Watch | undefined

  constructor(request: LockRequest) {
    this.request = request
  }

  /** How long a request for it may take, in milliseconds: never longer than the lease. */
  limit(commandTimeout: number): number {
    return Math.min(commandTimeout, Duration.toMillis(this.request.ttl))
  }

  /** Where it stands, or will. */
  spotOn(session: Session, root: string): Spot {
    const { key, owner } = this.request
    const { line, mark, place } = EtcdKeys.of(root, key)
    return { line, place: place(session.id, owner), mark: mark(owner), lease: session.id }
  }

  onSessionEnd(reason: LossReason): void {
    this.displace(reason)
  }

  /** Its key is gone. Who holds is told; who waits lines up again. */
  displace(reason: LossReason): void {
    this.displaced = true
    this.revision = undefined
    if (this.state === "held" && !this.over) {
      this.state = "lost"
      this.request.onLost(reason)
    }
    this.wake?.()
  }
}
