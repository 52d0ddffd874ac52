/**
 * A hold: one request of this process, and the grant that the backend answered it with. It knows when it was last
 * confirmed, when it is renewed next and when it ends. It is renewed (`renewal.ts`) until it is lost or released
 * (`release.ts`), and under it works one lease after another (`lease.ts`).
 */
import type * as Fiber from "effect/Fiber"
import type { LockRequest, Validity } from "../LockBackend.ts"
import type { LockBackendError, LossReason } from "../LockError.ts"
import type { LockLayer, Obligation } from "./layer.ts"
import type { Plan } from "./options.ts"
import type { Alarm } from "./watchdog.ts"

/** What the clocks of two machines may differ by over a ttl, and what a timer may be late. */
export const drift = (ttl: number): number => ttl / 100 + 2

/** What asked for the hold: the local line of its key. */
export interface Keeper {
  readonly upkeep: Upkeep
  /**
   * The hold is not in use: pass it, keep it or release it. `fetched`: tokens have just come for the next lease,
   * which is served with them though its turn may have ended meanwhile.
   */
  next(hold: Hold, fetched?: boolean): void
  /** The key may be asked for again. */
  freed(hold: Hold): void
}

/** What becomes of a hold by itself: its renewals and its loss. */
export interface Upkeep {
  readonly ring: (hold: Hold, now: number) => void
  readonly suspended: (hold: Hold, slept: number, now: number) => void
  readonly close: (hold: Hold) => void
  readonly lose: (hold: Hold, reason: LossReason) => void
}

/** What works under a hold. */
export interface Tenant {
  /** It must end before the key is free, so it is given the rest of the ttl to end. */
  readonly isSection: boolean
  /** Until then the key is to stay taken, whatever becomes of the tenant. */
  readonly keepsUntil: number
  readonly lose: (reason: LossReason, now: number) => void
}

/**
 * `asking`: no grant is believed. `held`. `lost`: ended, and a section still runs. `releasing`: about to be released, or
 * on the way. `done`: nothing of it is held or queued.
 */
type State = "asking" | "held" | "lost" | "releasing" | "done"

/** Moments are milliseconds of monotonic time; 0 is never. */
export class Hold implements Alarm, Obligation {
  due = 0
  slot = -1
  slack = 0
  readonly layer: LockLayer
  readonly keeper: Keeper
  readonly plan: Plan
  readonly request: LockRequest & { spare: number, ttl: number }
  state: State = "asking"
  /** Why it was lost; while asking: that it was lost before the grant was believed. */
  reason: LossReason | undefined
  tenant: Tenant | undefined
  /** The token of the next lease, and how many there are. */
  nextToken = 0n
  tokensLeft = 0
  /** The owner that holds the key while this one asks, as the backend last told. */
  heldBy: string | undefined
  /** Another process waits. */
  wanted = false
  /** From when on it is held. */
  since = 0
  ttl = 0
  validFrom = 0
  deadline = 0
  /** When it is renewed next. */
  renewAt = 0
  /** By the longest hold that its lease allows. */
  maxEnd: number | undefined
  /** Until then the key stays taken though it is not in use. */
  keptUntil = 0
  /** It is kept for the next caller in this process, and for how long after the last lease. */
  lingers = false
  lingerFor = 0
  /** A lease has worked under it. */
  served = false
  /** Confirmed since the machine was last suspended: an answer to what was sent before `freshFrom` confirms nothing. */
  certain = true
  freshFrom = 0
  /** The fiber that asks for the grant, and whether its outcome is still wanted. */
  asker: Fiber.Fiber<void> | undefined
  withdrawn = false
  renewal: Fiber.Fiber<void, LockBackendError> | undefined
  /** When it was asked for. */
  askedAt = 0
  /** The renewal under way asks for tokens. */
  fetches = false
  /** When the backend lets go of it at the latest if nothing is sent any more. */
  endsAt = 0
  failures = 0
  /** The error of the latest release that failed. */
  releaseError: LockBackendError | undefined
  /** The backend answered the release of a hold that should have been ours with `gone`. */
  wasTaken = false
  private watchers: Array<() => void> | undefined

  constructor(
    layer: LockLayer,
    keeper: Keeper,
    key: string,
    owner: string,
    plan: Plan,
    spare: number
  ) {
    this.layer = layer
    this.keeper = keeper
    this.plan = plan
    this.request = {
      key,
      owner,
      ttl: plan.ttl,
      spare,
      lingers: plan.linger > 0,
      // A backend may be in the midst of a loop over its holds.
      onLost: (reason) => queueMicrotask(() => this.keeper.upkeep.lose(this, reason)),
      onHeld: (by) => {
        this.heldBy = by
      },
      onWanted: () => {
        if (this.wanted) return
        this.wanted = true
        if (isIdle(this)) queueMicrotask(() => this.keeper.next(this))
      }
    }
    layer.obligations.add(this)
  }

  ring(now: number): void {
    this.keeper.upkeep.ring(this, now)
  }

  suspended(slept: number, now: number): void {
    this.keeper.upkeep.suspended(this, slept, now)
  }

  close(): void {
    this.keeper.upkeep.close(this)
  }

  /** Calls back at the next change: the hold is confirmed, lost or done. */
  onChange(watcher: () => void): void {
    this.watchers ??= []
    this.watchers.push(watcher)
  }

  changed(): void {
    const { watchers } = this
    this.watchers = undefined
    for (const watcher of watchers ?? []) watcher()
  }
}

/** The earlier of the deadline and the longest hold. */
export const limitOf = ({ deadline, maxEnd }: Hold): number =>
  maxEnd === undefined ? deadline : Math.min(deadline, maxEnd)

/** What is known of it is from before the machine was suspended. */
export const suspect = (hold: Hold, now: number): void => {
  hold.certain = false
  hold.freshFrom = now
}

/** Held, and not in use. */
export const isIdle = (hold: Hold): boolean => hold.state === "held" && hold.tenant === undefined

/** It is not in use, and the key is to stay taken all the same. */
export const isKept = (hold: Hold, now: number): boolean => now < hold.keptUntil && !hold.lingers

/** The chosen time between renewals, where the ttl that was really given leaves room for it and for an answer. */
export const renewEvery = ({ plan, ttl }: Hold): number =>
  plan.renewEvery === Number.POSITIVE_INFINITY || (plan.renewEvery !== undefined && plan.renewEvery < ttl * 0.9)
    ? plan.renewEvery
    : ttl / 3

/** A grant or a renewal was answered. */
export const extend = (hold: Hold, validity: Validity, now: number): void => {
  const validFrom = Math.min(validity.validFrom, now)
  // A later one was answered before, or it is from before the suspension.
  if (validFrom < hold.validFrom || validFrom < hold.freshFrom) return
  hold.certain = true
  hold.validFrom = validFrom
  hold.ttl = validity.ttl
  hold.deadline = validFrom + validity.ttl - drift(validity.ttl)
  hold.endsAt = Math.max(hold.endsAt, validFrom + validity.ttl)
  // The answer of a session may be old already.
  const every = renewEvery(hold)
  hold.renewAt = Math.max(validFrom + every, now + every / 4)
}

export const takeTokens = (hold: Hold, { tokens }: Validity): void => {
  if (tokens === undefined) return
  hold.nextToken = tokens.first
  hold.tokensLeft = tokens.spare + 1
}

const isValidity = ({ tokens, ttl, validFrom }: Validity): boolean =>
  Number.isFinite(validFrom) && Number.isFinite(ttl) && ttl > 0 &&
  (tokens === undefined || (typeof tokens.first === "bigint" && Number.isInteger(tokens.spare) && tokens.spare >= 0))

/** What is wrong with a grant, or `undefined`. */
export const malformed = (hold: Hold, operation: string, validity: Validity, needsTokens: boolean) =>
  isValidity(validity) && (!needsTokens || validity.tokens !== undefined)
    ? undefined
    : hold.layer.error(operation, "Protocol", "the backend answered with a malformed grant")

/** The answer to a request is not known, and may have begun or prolonged the hold. */
export const unanswered = (hold: Hold, now: number): void => {
  hold.endsAt = Math.max(hold.endsAt, now + Math.max(hold.ttl, hold.plan.ttl))
}

/** The grant is believed. */
export const begin = (hold: Hold, now: number): void => {
  hold.state = "held"
  hold.since = now
  hold.heldBy = undefined
}

/**
 * Holds that were taken at any time are renewed in so many groups: in fewer, a group of many holds up the event loop; in
 * more, there are more messages.
 */
const renewalGroups = 128

/** Sets the alarm to what happens next: the renewal, the end, or the end of the time that it is kept. */
export const schedule = (hold: Hold, now: number): void => {
  const limit = limitOf(hold)
  const kept = hold.tenant === undefined && hold.keptUntil > now ? hold.keptUntil : Number.POSITIVE_INFINITY
  hold.slack = hold.renewAt < limit && hold.renewAt < kept ? Math.floor(renewEvery(hold) / renewalGroups) : 0
  hold.layer.watchdog.set(hold, Math.min(hold.renewAt, limit, kept))
}
