/**
 * Time limits for many short waits with one timer. `Effect.timeout` costs two fibers and a timer for each request,
 * which is a good part of what a request to a near server costs at all.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"

/**
 * One wait: when it is over, and what then happens. They hang together in a ring, because a `Set` that much goes through
 * leaves a chain of its old tables behind, which holds all that was ever in them until the next full garbage collection.
 */
export abstract class Deadline {
  /** In milliseconds of `Clock.monotonicTimeNanos`. */
  at = 0
  /** The neighbours; `undefined`: it is not watched. */
  before: Deadline | undefined
  after: Deadline | undefined
  abstract expire(): void
}

/** A deadline that calls a function. */
export class Alarm extends Deadline {
  readonly expire: () => void
  constructor(expire: () => void) {
    super()
    this.expire = expire
  }
}

export interface Deadlines {
  /** Calls `expire` once at its time, unless the deadline was removed. It must not be watched already. */
  readonly add: (deadline: Deadline) => void
  readonly remove: (deadline: Deadline) => void
}

/** How late a deadline may be noticed. */
const tick = Duration.millis(20)

/** Deadlines that are watched until the scope closes. `onExpired` is called when some have expired. */
export const make = Effect.fnUntraced(function*(
  onExpired: () => void
): Effect.fn.Return<Deadlines, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const ring: Deadline = new Alarm(() => {})
  ring.before = ring
  ring.after = ring
  const somePending = Latch.makeUnsafe(false)

  const remove = (deadline: Deadline): void => {
    const { after, before } = deadline
    if (before === undefined || after === undefined) return
    before.after = after
    after.before = before
    deadline.before = undefined
    deadline.after = undefined
  }
  const expireDue = Effect.sync(() => {
    const now = Number(clock.monotonicTimeNanosUnsafe()) / 1e6
    const due: Array<Deadline> = []
    for (let deadline = ring.after; deadline !== undefined && deadline !== ring; deadline = deadline.after) {
      if (deadline.at <= now) due.push(deadline)
    }
    for (const deadline of due) {
      // One that expired before may have removed it.
      if (deadline.before === undefined) continue
      remove(deadline)
      deadline.expire()
    }
    if (due.length > 0) onExpired()
    if (ring.after === ring) somePending.closeUnsafe()
  })
  yield* somePending.await.pipe(
    Effect.andThen(Effect.sleep(tick)),
    Effect.andThen(expireDue),
    Effect.forever,
    Effect.forkScoped
  )

  return {
    add: (deadline) => {
      const last = ring.before ?? ring
      deadline.before = last
      deadline.after = ring
      last.after = deadline
      ring.before = deadline
      somePending.openUnsafe()
    },
    remove
  }
})
