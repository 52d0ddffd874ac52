import type { LockRequest } from "@dlock/core"
import { Effect, Fiber } from "effect"
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
    name: "a release wakes nobody",
    caughtBy: "acquire waits for the holder and then excludes everybody else",
    make: (store) => withLine(store, () => [])
  },
  {
    name: "a release wakes everybody, and who is quickest wins",
    caughtBy: "tryAcquire does not overtake those who stand in line",
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
        release: (request) => Effect.suspend(() => held.has(request) ? backend.release(request) : Effect.succeed(false))
      }
    }
  },
  {
    name: "release does not end an acquire that waits",
    caughtBy: "release ends an acquire that still waits, and it holds nothing",
    make: (store) => {
      const held = new WeakSet<LockRequest>()
      const backend = observe(store, { granted: (request) => held.add(request), released: () => {} })
      return {
        ...backend,
        release: (request) =>
          Effect.suspend(() => {
            if (!held.has(request)) return Effect.succeed(false)
            held.delete(request)
            return Effect.as(Effect.forkDetach(Effect.delay(backend.release(request), "1 second")), true)
          })
      }
    }
  },
  {
    name: "who leaves the line takes the one behind along",
    caughtBy: "who leaves the line does not hold up those behind",
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
    name: "who leaves at its turn keeps it",
    caughtBy: "who leaves at the moment of its turn does not hold up those behind",
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
        release: (request) => Effect.suspend(() => seen.has(request) ? store.release(request) : Effect.succeed(false))
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
          Effect.suspend(() => forgotten.has(request) ? Effect.succeed(false) : store.release(request))
      }
    }
  }
]
