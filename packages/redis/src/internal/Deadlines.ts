/**
 * Time limits for many short waits with one timer. `Effect.timeout` costs two fibers and a timer for each request,
 * which is a good part of what a request to a near server costs at all.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"

/** One wait: when it is over, and what then happens. */
export interface Deadline {
  /** In milliseconds of `Clock.monotonicTimeNanos`. */
  readonly at: number
  readonly expire: () => void
}

export interface Deadlines {
  /** Calls `expire` once at that time, unless the deadline was removed. */
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
  const pending = new Set<Deadline>()
  const somePending = Latch.makeUnsafe(false)

  const expireDue = Effect.sync(() => {
    const now = Number(clock.monotonicTimeNanosUnsafe()) / 1e6
    let someExpired = false
    for (const deadline of pending) {
      if (deadline.at > now || !pending.delete(deadline)) continue
      someExpired = true
      deadline.expire()
    }
    if (someExpired) onExpired()
    if (pending.size === 0) somePending.closeUnsafe()
  })
  yield* somePending.await.pipe(
    Effect.andThen(Effect.sleep(tick)),
    Effect.andThen(expireDue),
    Effect.forever,
    Effect.forkScoped
  )

  return {
    add: (deadline) => {
      pending.add(deadline)
      somePending.openUnsafe()
    },
    remove: (deadline) => {
      pending.delete(deadline)
    }
  }
})
