/**
 * How long a lease is good for, as told by the clock here: from the last confirmation of the backend to the deadline.
 */
import * as Duration from "effect/Duration"
import type { Validity } from "../LockBackend.ts"
import { Alarm, type Watchdog } from "./watchdog.ts"

/** How long a lease that the sleep of the machine has used up is believed in, while it is asked for. */
const longestDoubt = 1000

/** What the clocks of two machines may differ by over a ttl, and what a timer may be late. */
const drift = (ttl: number): number => ttl / 100 + 2

const millis = (nanos: bigint): number => Number(nanos) / 1e6

export abstract class Term extends Alarm {
  protected readonly watchdog: Watchdog
  protected ttlGiven = 0
  protected validFrom = 0
  protected deadline = 0
  /** When the backend lets go of it at the latest if nothing is sent any more. */
  private endsAt = 0
  private skew: number
  /** When it was noticed that the machine slept, and the skew then: what was confirmed before says nothing. */
  private doubtedAt = Number.NEGATIVE_INFINITY
  private doubtedSkew = 0

  constructor(watchdog: Watchdog, now: number) {
    super()
    this.watchdog = watchdog
    this.skew = watchdog.wallSkew(now)
  }

  /** How far wall time ran ahead since the lease was last confirmed: the machine slept, or somebody set the clock. */
  private ahead(now: number): number {
    return this.watchdog.wallSkew(now) - this.skew
  }

  /** Whether the lease outlived that is not known. */
  isDoubtful(now: number): boolean {
    return this.ahead(now) > drift(this.ttlGiven)
  }

  /** The time that the machine slept counts too, but that there is a moment to ask whether the clock was only set. */
  doubt(now: number): void {
    if (!this.isDoubtful(now)) return
    const skew = this.watchdog.wallSkew(now)
    if (this.doubtedAt === Number.NEGATIVE_INFINITY || skew - this.doubtedSkew > drift(this.ttlGiven)) {
      this.doubtedAt = now
      this.doubtedSkew = skew
    }
    const slept = this.validFrom + this.ttlGiven - drift(this.ttlGiven) - this.ahead(now)
    const asked = now + Math.min(longestDoubt, this.ttlGiven / 3)
    this.deadline = Math.min(this.deadline, Math.max(slept, asked))
  }

  /** A third of the ttl is gone: what brought the grant was slow, and may be late. */
  isStale(now: number): boolean {
    return now - this.validFrom >= this.ttlGiven / 3
  }

  /**
   * Without a skew: of the request that began the term. `false`: a later one has been answered before, or it is from
   * before the sleep, as a backend may answer that refreshes one session for many leases.
   */
  protected confirmed(validity: Validity, skew = this.skew): boolean {
    const validFrom = millis(validity.validFrom)
    if (validFrom < this.validFrom || validFrom < this.doubtedAt) return false
    this.doubtedAt = Number.NEGATIVE_INFINITY
    this.validFrom = validFrom
    this.ttlGiven = Duration.toMillis(validity.ttl)
    this.deadline = validFrom + this.ttlGiven - drift(this.ttlGiven)
    this.endsAt = Math.max(this.endsAt, validFrom + this.ttlGiven)
    this.skew = skew
    return true
  }

  /** The answer to a request that may have begun or prolonged the lease by as much as `ttl` is not known. */
  protected unanswered(now: number, ttl: number): void {
    this.endsAt = Math.max(this.endsAt, now + Math.max(this.ttlGiven, ttl))
  }

  /** Whether the lease has ended by itself at the backend, whatever became of the requests. */
  ended(now: number): boolean {
    return now >= this.endsAt
  }
}
