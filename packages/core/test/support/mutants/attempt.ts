import type { LockBackendError, LockRequest } from "@dlock/core"
import { Effect, Fiber } from "effect"
import type { Mutant } from "./wrap.ts"
import { mapGrant, observe } from "./wrap.ts"

/** An attempt that asks twice, is interrupted or is given back. */
export const attempt: ReadonlyArray<Mutant> = [
  {
    name: "an interrupted acquire of a free key keeps it",
    caughtBy: "an acquire that is interrupted at any moment leaves nothing",
    make: (store) => {
      const answered = new WeakSet<LockRequest>()
      const slow = (request: LockRequest) => <A>(effect: Effect.Effect<A, LockBackendError>) =>
        Effect.tap(
          effect,
          () => Effect.andThen(Effect.repeat(Effect.yieldNow, { times: 3 }), Effect.sync(() => answered.add(request)))
        )
      return {
        ...store,
        tryAcquire: (request) => slow(request)(store.tryAcquire(request)),
        acquire: (request) => slow(request)(store.acquire(request)),
        release: (request) =>
          Effect.suspend(() => answered.has(request) ? store.release(request) : Effect.succeed(false))
      }
    }
  },
  {
    name: "a give-back leaves no void mark",
    caughtBy: "an attempt that was given back gets nothing any more",
    make: (store) => ({
      ...store,
      tryAcquire: (request) => store.tryAcquire({ ...request }),
      acquire: (request) => store.acquire({ ...request })
    })
  },
  {
    name: "a release does not reach an acquire in flight",
    caughtBy: "a release beside an acquire in flight wins",
    make: (store) => ({
      ...store,
      acquire: (request) =>
        Effect.flatMap(
          Effect.forkDetach(Effect.andThen(
            Effect.repeat(Effect.yieldNow, { times: 15 }),
            Effect.suspend(() => store.acquire({ ...request }))
          )),
          Fiber.join
        )
    })
  },
  {
    name: "the holder that asks again is refused",
    caughtBy: "an owner that asks again gets its own grant back",
    make: (store) => {
      const asked = new WeakSet<LockRequest>()
      return {
        ...store,
        tryAcquire: (request) => {
          const again = asked.has(request)
          asked.add(request)
          return again ? Effect.succeedNone : store.tryAcquire(request)
        }
      }
    }
  },
  {
    name: "grants are counted, and need as many releases",
    caughtBy: "an owner that asks again gets its own grant back",
    make: (store) => {
      const counts = new WeakMap<LockRequest, number>()
      const backend = observe(store, {
        granted: (request) => counts.set(request, (counts.get(request) ?? 0) + 1),
        released: () => {}
      })
      return {
        ...backend,
        release: (request) =>
          Effect.suspend(() => {
            const left = (counts.get(request) ?? 1) - 1
            counts.set(request, left)
            return left > 0 ? Effect.succeed(true) : backend.release(request)
          })
      }
    }
  },
  {
    name: "asking again gives a new fencing token",
    caughtBy: "an owner that asks again gets its own grant back",
    make: (store) => {
      let n = 0n
      return mapGrant(store, (grant) => ({ ...grant, fencingToken: ++n }))
    }
  },
  {
    name: "an attempt that asks again while it waits stands in line twice",
    caughtBy: "an owner that asks again while it waits has one place in line",
    make: (store) => {
      const asked = new WeakSet<LockRequest>()
      return {
        ...store,
        acquire: (request) =>
          Effect.suspend(() => {
            const again = asked.has(request)
            asked.add(request)
            return store.acquire(again ? { ...request, owner: `${request.owner}/again` } : request)
          })
      }
    }
  },
  {
    name: "the second of two equal acquires is never answered",
    caughtBy: "the same acquire sent twice at once is granted once",
    make: (store) => {
      const asked = new WeakSet<LockRequest>()
      return {
        ...store,
        acquire: (request) =>
          Effect.suspend(() => {
            const again = asked.has(request)
            asked.add(request)
            return again ? Effect.never : store.acquire(request)
          })
      }
    }
  }
]
