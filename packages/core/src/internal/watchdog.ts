/**
 * One fiber that keeps the time for everything in a `Lock` layer: renewals, deadlines, timeouts. Alarms stand in a heap
 * by the time they are due, so that an uncontended lock costs no timer of its own. It also notices that the machine was
 * suspended.
 *
 * Times are milliseconds of the monotonic clock.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

export interface Alarm {
  due: number
  /** The place in the heap; -1: not set. */
  slot: number
  /** How much earlier it may ring, so that what falls due together is done together. */
  slack: number
  /** Called once when due; synchronous, does not throw. */
  ring(now: number): void
}

/** An alarm that calls back. */
export class Timer implements Alarm {
  due = 0
  slot = -1
  slack = 0
  readonly ring: (now: number) => void
  constructor(ring: (now: number) => void) {
    this.ring = ring
  }
}

/** A suspended machine is noticed within this time of its waking, because its timers did not count the time. */
const longestNap = 1000
/** Wall time counts whole milliseconds, and may be slewed by half a millisecond per second. */
const noise = 2

export class Watchdog {
  readonly clock: Clock.Clock
  /** Called when the machine was suspended, with the time that the monotonic clock did not count. */
  onSuspended: (slept: number, now: number) => void = () => {}
  private readonly heap: Array<Alarm> = []
  /** A clock that only moves when it is told to cannot be late. */
  private readonly naps: boolean
  private wakeAt = Number.POSITIVE_INFINITY
  private wake: (() => void) | undefined
  /** How far wall time is ahead of monotonic time. */
  private skew: number

  constructor(clock: Clock.Clock) {
    this.clock = clock
    this.naps = !("adjust" in clock)
    this.skew = this.readSkew()
  }

  now(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe()) / 1e6
  }

  private readSkew(): number {
    // Wall time first: time that passes between the two readings is no suspension.
    const wall = this.clock.currentTimeMillisUnsafe()
    return wall - this.now()
  }

  /** The time now, after a look at both clocks. */
  look(): number {
    const wall = this.clock.currentTimeMillisUnsafe()
    const now = this.now()
    let skew = wall - now
    // A reading that is held up between the clocks is too small, and would make the next one a jump.
    if (skew < this.skew - noise) skew = Math.max(skew, this.readSkew())
    const slept = skew - this.skew
    this.skew = skew
    if (slept > noise) this.onSuspended(slept, now)
    return now
  }

  set(alarm: Alarm, due: number): void {
    alarm.due = due
    if (alarm.slot === -1) {
      alarm.slot = this.heap.length
      this.heap.push(alarm)
      this.up(alarm.slot)
    } else {
      this.up(alarm.slot)
      this.down(alarm.slot)
    }
    if (due < this.wakeAt) {
      this.wakeAt = Number.NEGATIVE_INFINITY
      this.wake?.()
    }
  }

  get alarms(): ReadonlyArray<Alarm> {
    return this.heap
  }

  clear(alarm: Alarm): void {
    const { slot } = alarm
    if (slot === -1) return
    alarm.slot = -1
    const last = this.heap.pop()
    if (last === undefined || last === alarm) return
    this.place(last, slot)
    this.up(slot)
    this.down(last.slot)
  }

  /** Rings everything, due or not: the time is kept no longer. */
  ringAll(): void {
    for (const alarm of this.heap.slice()) {
      if (alarm.slot === -1) continue
      this.clear(alarm)
      alarm.ring(this.now())
    }
  }

  /** Rings what is due, sleeps until the next is. */
  readonly run: Effect.Effect<never> = Effect.suspend(() => {
    const awake = Effect.callback<void>((resume) => {
      // An alarm may have been set since the time to wake was read: Effect may yield between any two.
      if (this.wakeAt === Number.NEGATIVE_INFINITY) return resume(Effect.void)
      // What is resumed runs at once, and the caller that sets an alarm may be in the midst of a step.
      this.wake = () => resume(Effect.yieldNow)
    })
    const round = Effect.suspend(() => {
      this.look()
      const next = this.ringDue()
      if (next === undefined) {
        this.wakeAt = Number.POSITIVE_INFINITY
        return awake
      }
      const now = this.now()
      const until = Math.max(Math.ceil(next - now), 0)
      const nap = this.naps ? Math.min(until, longestNap) : until
      this.wakeAt = now + nap
      return Effect.raceFirst(Effect.sleep(nap), awake)
    })
    // An alarm may throw in code that is not ours, a logger for example; the others still ring.
    return Effect.forever(Effect.catchDefect(round, (defect) => Effect.logError("An alarm of a lock failed", defect)))
  })

  private ringDue(): number | undefined {
    const now = this.now()
    let first = this.heap[0]
    while (first !== undefined && first.due - first.slack <= now) {
      this.clear(first)
      first.ring(now)
      first = this.heap[0]
    }
    return first?.due
  }

  private place(alarm: Alarm, slot: number): void {
    this.heap[slot] = alarm
    alarm.slot = slot
  }

  private up(slot: number): void {
    const alarm = this.heap[slot]
    if (alarm === undefined) return
    for (let at = slot; at > 0;) {
      const above = (at - 1) >> 1
      const parent = this.heap[above]
      if (parent === undefined || parent.due <= alarm.due) return
      this.place(parent, at)
      this.place(alarm, above)
      at = above
    }
  }

  private down(slot: number): void {
    const alarm = this.heap[slot]
    if (alarm === undefined) return
    for (;;) {
      const left = this.heap[2 * slot + 1]
      const right = this.heap[2 * slot + 2]
      const child = right !== undefined && left !== undefined && right.due < left.due ? right : left
      if (child === undefined || child.due >= alarm.due) return
      const at = child.slot
      this.place(child, slot)
      this.place(alarm, at)
      slot = at
    }
  }
}
