import type { Grant, LockRequest } from "@dlock/core"
import { Deferred, Effect, Fiber } from "effect"
import type { Mutant } from "./wrap.ts"
import { observe, withLine } from "./wrap.ts"

/** The line. */
export const line: ReadonlyArray<Mutant> = [
  {
    name: "the line is last come, first served",
    caughtBy: "the line is first come, first served over both clients",
    make: (store) => withLine(store, (waiting) => waiting.splice(-1))
  },
  {
    name: "a release wakes no waiter",
    caughtBy: "acquire waits for the holder and then excludes every other owner",
    make: (store) => withLine(store, () => [])
  },
  {
    name: "a release wakes every waiter, and the quickest wins",
    caughtBy: "tryAcquire does not overtake the line",
    make: (store) => withLine(store, (waiting) => waiting.splice(0))
  },
  {
    name: "a waiter whose acquire was interrupted stays in line",
    caughtBy: "release leaves the line",
    make: (store) => {
      const held = new WeakSet<LockRequest>()
      const backend = observe(store, {
        granted: (request) => held.add(request),
        released: (request) => held.delete(request)
      })
      return {
        ...backend,
        acquire: (request) =>
          Effect.flatMap(Effect.forkDetach(backend.acquire(request), { startImmediately: true }), Fiber.join),
        release: (request) =>
          Effect.suspend(() => held.has(request) ? backend.release(request) : Effect.succeed("gone" as const))
      }
    }
  },
  {
    name: "a release serves two waiters",
    caughtBy: "a release hands the key over to exactly one waiter, and tryAcquire does not come between",
    make: (store) => {
      const waiting = new Set<Deferred.Deferred<Grant>>()
      return {
        ...store,
        acquire: (request) =>
          Effect.suspend(() => {
            const served = Deferred.makeUnsafe<Grant>()
            waiting.add(served)
            const granted = Effect.tap(store.acquire(request), (grant) =>
              Effect.sync(() => {
                waiting.delete(served)
                for (const other of waiting) Deferred.doneUnsafe(other, Effect.succeed(grant))
              }))
            return Effect.raceFirst(granted, Deferred.await(served))
          })
      }
    }
  },
  {
    name: "a waiter that leaves the line takes the next one along",
    caughtBy: "a waiter that leaves the line does not hold up those behind",
    make: (store) => {
      const lines = new Map<string, Set<LockRequest>>()
      return {
        ...store,
        acquire: (request) =>
          Effect.suspend(() => {
            const line = lines.get(request.key) ?? new Set()
            lines.set(request.key, line.add(request))
            return Effect.onInterrupt(
              Effect.tap(store.acquire(request), () => Effect.sync(() => line.delete(request))),
              () => Effect.forEach([...line].slice([...line].indexOf(request)), store.release)
            )
          })
      }
    }
  },
  {
    name: "a waiter that leaves at its grant keeps the key",
    caughtBy: "a waiter that leaves at the moment of its grant does not hold up those behind",
    make: (store) => {
      const seen = new WeakSet<LockRequest>()
      return {
        ...store,
        tryAcquire: (request) => {
          seen.add(request)
          return store.tryAcquire(request)
        },
        acquire: (request) =>
          Effect.onInterrupt(
            Effect.tap(store.acquire(request), () => Effect.sync(() => seen.add(request))),
            () => Effect.void
          ),
        release: (request) =>
          Effect.suspend(() => seen.has(request) ? store.release(request) : Effect.succeed("gone" as const))
      }
    }
  },
  {
    name: "one interrupted acquire in ten stays in line",
    caughtBy: "exclusion and the line survive a storm of waits, tries and interruptions",
    make: (store) => {
      const forgotten = new WeakSet<LockRequest>()
      let n = 0
      return {
        ...store,
        acquire: (request) =>
          Effect.onInterrupt(
            Effect.flatMap(Effect.forkDetach(store.acquire(request), { startImmediately: true }), (there) =>
              Effect.onInterrupt(Fiber.join(there), () =>
                ++n % 10 === 0 ? Effect.void : Fiber.interrupt(there))),
            () =>
              Effect.sync(() => {
                if (n % 10 === 0) {
                  forgotten.add(request)
                }
              })
          ),
        release: (request) =>
          Effect.suspend(() => forgotten.has(request) ? Effect.succeed("gone" as const) : store.release(request))
      }
    }
  }
]
