/**
 * Many time limits with one fiber: `Effect.timeout` costs two fibers and a timer for each request, which is a good part
 * of what a request to a near server costs at all.
 *
 * @stability unstable
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/**
 * A time limit: what happens when it is over. Any object may be one; `due` and `slot` belong to the timers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Timer {
  /** Called once, when it is due. Synchronous. */
  readonly ring: (now: number) => void
  /** When it rings, in milliseconds of the monotonic clock. */
  due: number
  /** Its place in the heap; -1: it is not set. */
  slot: number
}

/**
 * Time limits that are watched until the scope closes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Timers {
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
  /** Rings the timer once, when `due` has come; one that is set already is set anew. */
  readonly set: (timer: Timer, due: number) => void
  /** Takes it back, if it is set; tells whether it was. */
  readonly clear: (timer: Timer) => boolean
}

/**
 * A timer that is not set yet.
 *
 * @category constructors
 * @since 0.1.0
 */
export const timer = (ring: (now: number) => void): Timer => ({ ring, due: 0, slot: -1 })

type Heap = Array<Timer>

const place = (heap: Heap, timer: Timer, slot: number): void => {
  heap[slot] = timer
  timer.slot = slot
}

const up = (heap: Heap, timer: Timer): void => {
  for (let slot = timer.slot; slot > 0;) {
    const above = (slot - 1) >> 1
    const parent = heap[above]
    if (parent === undefined || parent.due <= timer.due) return
    place(heap, parent, slot)
    place(heap, timer, above)
    slot = above
  }
}

const down = (heap: Heap, timer: Timer): void => {
  for (;;) {
    const { slot } = timer
    const left = heap[2 * slot + 1]
    const right = heap[2 * slot + 2]
    const child = left !== undefined && right !== undefined && right.due < left.due ? right : left
    if (child === undefined || child.due >= timer.due) return
    const below = child.slot
    place(heap, child, slot)
    place(heap, timer, below)
  }
}

const add = (heap: Heap, timer: Timer, due: number): void => {
  timer.due = due
  if (timer.slot === -1) place(heap, timer, heap.length)
  up(heap, timer)
  down(heap, timer)
}

const remove = (heap: Heap, timer: Timer): boolean => {
  const { slot } = timer
  if (slot === -1) return false
  timer.slot = -1
  const last = heap.pop()
  if (last === undefined || last === timer) return true
  place(heap, last, slot)
  up(heap, last)
  down(heap, last)
  return true
}

/**
 * Starts to watch time limits, until the scope closes; what is set then does not ring.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<Timers, never, Scope.Scope> = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const heap: Heap = []
  const now = (): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  // When the fiber looks again; infinite: when it is woken.
  let looksAt = Number.POSITIVE_INFINITY
  let woken = false
  let wake: (() => void) | undefined
  const untilWoken = Effect.callback<void>((resume) => {
    if (woken) return resume(Effect.void)
    wake = () => resume(Effect.void)
  })
  const ringDue = (): void => {
    const time = now()
    for (let first = heap[0]; first !== undefined && first.due <= time; first = heap[0]) {
      remove(heap, first)
      first.ring(time)
    }
  }
  const round = Effect.suspend(() => {
    woken = false
    ringDue()
    const [first] = heap
    looksAt = first?.due ?? Number.POSITIVE_INFINITY
    return first === undefined
      ? untilWoken
      : Effect.raceFirst(Effect.sleep(Math.max(Math.ceil(first.due - now()), 0)), untilWoken)
  })
  // The owner of one timer may throw when it rings; the others still count on theirs.
  yield* Effect.forever(Effect.catchDefect(round, (defect) => Effect.logError("A time limit failed", defect))).pipe(
    Effect.forkScoped
  )
  return {
    now,
    set: (timer, due) => {
      add(heap, timer, due)
      if (due >= looksAt) return
      looksAt = due
      woken = true
      wake?.()
    },
    clear: (timer) => remove(heap, timer)
  }
})
