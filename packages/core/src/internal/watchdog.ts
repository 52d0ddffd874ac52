/**
 * One fiber that keeps the time for everything in a `Lock` layer: renewals, deadlines, waits that may not last longer.
 * Alarms stand in a heap by the time they are due, so that an uncontended lock costs no timer of its own.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/** Times are milliseconds of the monotonic clock. */
export abstract class Alarm {
  due = 0
  /** The place in the heap; -1: not set. */
  slot = -1
  /** How much earlier it may ring, so that what falls due together is done together. */
  slack = 0
  /** Called once when due; synchronous, does not throw. */
  abstract ring(now: number): void
}

/** An alarm that calls back. */
export class Timer extends Alarm {
  readonly ring: () => void
  constructor(ring: () => void) {
    super()
    this.ring = ring
  }
}

// A machine that slept is noticed within this time, because its timers did not count the sleep.
const longestNap = 1000

export class Watchdog {
  readonly clock: Clock.Clock
  private readonly heap: Array<Alarm> = []
  private wakeAt = Number.POSITIVE_INFINITY
  private wake: (() => void) | undefined
  private skew: number

  constructor(clock: Clock.Clock) {
    this.clock = clock
    this.skew = this.wallSkew()
  }

  now(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe()) / 1e6
  }

  /** How far wall time is ahead of monotonic time; grows when the machine sleeps. */
  wallSkew(now?: number): number {
    // Wall time first: what passes between the two is no sleep.
    const wall = this.clock.currentTimeMillisUnsafe()
    return wall - (now ?? this.now())
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

  /** Rings what is due, sleeps until the next is; `onSlept` is called when the machine has slept. */
  run(onSlept: () => void): Effect.Effect<never> {
    const awake = Effect.callback<void>((resume) => {
      // An alarm may have been set since the time to wake was read: Effect may yield between any two.
      if (this.wakeAt === Number.NEGATIVE_INFINITY) return resume(Effect.void)
      this.wake = () => resume(Effect.void)
    })
    const round = Effect.suspend(() => {
      const skew = this.wallSkew()
      // Half of the smallest drift that a deadline allows for; less is the clocks' own noise.
      if (skew - this.skew > 1) onSlept()
      this.skew = skew
      const next = this.ringDue()
      if (next === undefined) {
        this.wakeAt = Number.POSITIVE_INFINITY
        return awake
      }
      const now = this.now()
      const nap = Math.min(Math.max(Math.ceil(next - now), 0), longestNap)
      this.wakeAt = now + nap
      return Effect.raceFirst(Effect.sleep(nap), awake)
    })
    // Whoever waits for an alarm may throw when it rings; the others still count on theirs.
    return Effect.forever(Effect.catchDefect(round, (defect) => Effect.logError("An alarm of a lock failed", defect)))
  }

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
