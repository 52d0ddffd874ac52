/**
 * Time limits for many calls with one fiber: `Effect.timeout` costs two fibers and a timer for each. gRPC keeps the
 * deadline of a call as well, but not that of the log-in before it, nor what the policies of a given client add to it.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"

export interface Deadline {
  /** Milliseconds, on the monotonic clock. */
  readonly at: number
  readonly expire: () => void
}

/** Calls `expire` of each that is in the set when its time has come. */
export type EtcdDeadlines = Pick<Set<Deadline>, "add" | "delete">

/** How late a deadline may be noticed, in milliseconds. */
const tick = 20

/** Deadlines that are kept until the scope closes. */
export const make = Effect.fnUntraced(function*(
  now: () => number
): Effect.fn.Return<EtcdDeadlines, never, Scope.Scope> {
  const pending = new Set<Deadline>()
  const latch = yield* Latch.make(false)
  const sweep = Effect.sync(() => {
    const time = now()
    for (const deadline of pending) {
      if (deadline.at <= time && pending.delete(deadline)) deadline.expire()
    }
    if (pending.size === 0) latch.closeUnsafe()
  })
  yield* latch.await.pipe(Effect.andThen(Effect.sleep(tick)), Effect.andThen(sweep), Effect.forever, Effect.forkScoped)
  return {
    add: (deadline) => {
      latch.openUnsafe()
      return pending.add(deadline)
    },
    delete: (deadline) => pending.delete(deadline)
  }
})
