import type { LockBackendError, LockRequest, Validity } from "@dlock/core"
import { Clock, Duration, Effect, Option } from "effect"
import type { Mutant } from "./wrap.ts"
import { mapGrant, mapRequest, shift, withHolders, withLine } from "./wrap.ts"

/** What a lease says of itself, and how it ends. */
export const lease: ReadonlyArray<Mutant> = [
  {
    name: "anybody can release",
    caughtBy: "only the owner releases",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return { ...backend, release: (request) => backend.release(holderOf(request.key) ?? request) }
    }
  },
  {
    name: "a release that comes again frees the key of the next holder",
    caughtBy: "release is idempotent, also when the key is somebody else's by now",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      const released = new WeakSet<LockRequest>()
      return {
        ...backend,
        release: (request) => {
          const again = released.has(request)
          released.add(request)
          return backend.release(again ? holderOf(request.key) ?? request : request)
        }
      }
    }
  },
  {
    name: "release always answers true",
    caughtBy: "release of an owner that never asked does nothing to a free key",
    make: (store) => ({ ...store, release: (request) => Effect.as(store.release(request), true) })
  },
  {
    name: "release always answers false",
    caughtBy: "acquire of a free key does not wait",
    make: (store) => ({ ...store, release: (request) => Effect.as(store.release(request), false) })
  },
  {
    name: "release does nothing",
    caughtBy: "acquire of a free key does not wait",
    make: (store) => ({ ...store, release: () => Effect.succeed(true) })
  },
  {
    name: "renew creates the lease again",
    caughtBy: "a lease that ended is not renewed, and renewing it does not create it again",
    make: (store) => ({
      ...store,
      renew: (request) =>
        Effect.flatMap(
          store.renew(request),
          (validity): Effect.Effect<Option.Option<Validity>, LockBackendError> =>
            Option.isSome(validity) ? Effect.succeed(validity) : store.tryAcquire({ ...request })
        )
    })
  },
  {
    name: "renew after the release creates the lease again",
    caughtBy: "renew after release is none, also when both are sent at once",
    make: (store) => {
      const released = new WeakSet<LockRequest>()
      return {
        ...store,
        release: (request) => {
          released.add(request)
          return store.release(request)
        },
        renew: (request) => released.has(request) ? store.tryAcquire({ ...request }) : store.renew(request)
      }
    }
  },
  {
    name: "anybody can renew",
    caughtBy: "renew by somebody who does not hold the key changes nothing",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return { ...backend, renew: (request) => backend.renew(holderOf(request.key) ?? request) }
    }
  },
  {
    name: "renew answers without extending",
    caughtBy: "a renewed lease outlives its ttl",
    make: (store) => ({
      ...store,
      renew: (request) =>
        Effect.map(Clock.monotonicTimeNanos, (validFrom) => Option.some({ validFrom, ttl: request.ttl }))
    })
  },
  {
    name: "renew by a former holder takes the key back",
    caughtBy: "a lease that went to somebody else is not renewed",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return {
        ...backend,
        renew: (request) =>
          Effect.flatMap(backend.renew(request), (validity) => {
            const holder = holderOf(request.key)
            return Option.isSome(validity) || holder === undefined || holder === request
              ? Effect.succeed(validity)
              : Effect.andThen(backend.release(holder), backend.tryAcquire({ ...request }))
          })
      }
    }
  },
  {
    name: "a lease never ends",
    caughtBy: "a lease that nobody renews ends at its ttl with nobody in line",
    make: (store) =>
      mapGrant(mapRequest(store, () => ({ ttl: Duration.days(1) })), (grant, { ttl }) => ({ ...grant, ttl }))
  },
  {
    name: "a lease ends before its ttl",
    caughtBy: "a lease that nobody renews ends at its ttl, not before, and the next in line has the key",
    make: (store) =>
      mapGrant(
        mapRequest(store, ({ ttl }) => ({ ttl: Duration.divideUnsafe(ttl, 2) })),
        (grant, { ttl }) => ({ ...grant, ttl })
      )
  },
  {
    name: "a lease ends 100 milliseconds late",
    caughtBy: "a lease that nobody renews ends at its ttl, not before, and the next in line has the key",
    make: (store) =>
      mapGrant(
        mapRequest(store, ({ ttl }) => ({ ttl: Duration.sum(ttl, Duration.millis(100)) })),
        (grant, { ttl }) => ({ ...grant, ttl })
      )
  },
  {
    name: "the ttl is ignored",
    caughtBy: "a grant says truly from when and for how long it is good",
    make: (store) => mapRequest(store, () => ({ ttl: Duration.minutes(10) }))
  },
  {
    name: "validity counts from after the answer",
    caughtBy: "a grant says truly from when and for how long it is good",
    make: (store) => mapGrant(store, (grant) => shift(grant, "1 second"))
  },
  {
    name: "a lease that ends with somebody in line stays until it is looked at",
    caughtBy: "a waiter that does nothing with its turn holds up the line for its ttl",
    make: (store) => withLine(store, (waiting) => waiting.splice(0, 1))
  },
  {
    name: "the fencing token is constant",
    caughtBy: "fencing tokens grow over owners, clients and ways of getting the key",
    make: (store) => mapGrant(store, (grant) => ({ ...grant, fencingToken: 1n }))
  },
  {
    name: "the fencing token does not grow on a hand-over",
    caughtBy: "fencing tokens grow over owners, clients and ways of getting the key",
    make: (store) => {
      const last = new Map<string, bigint>()
      return {
        ...store,
        tryAcquire: (request) =>
          Effect.tap(
            store.tryAcquire(request),
            (grant) => Effect.sync(() => Option.isSome(grant) && last.set(request.key, grant.value.fencingToken))
          ),
        acquire: (request) =>
          Effect.map(store.acquire(request), (grant) => ({
            ...grant,
            fencingToken: last.get(request.key) ?? grant.fencingToken
          })),
        renew: (request) => Effect.map(store.renew(request), Option.map(({ ttl, validFrom }) => ({ ttl, validFrom })))
      }
    }
  },
  {
    name: "the fencing token starts again when a lease ended by itself",
    caughtBy: "fencing tokens grow over leases that ended by themselves",
    make: (store) => {
      const tokens = new Map<string, bigint>()
      const { backend, holderOf } = withHolders(store)
      const { acquire, tryAcquire } = mapGrant(backend, (grant, { key }) => {
        const token = (tokens.get(key) ?? 0n) + 1n
        tokens.set(key, token)
        return { ...grant, fencingToken: token }
      })
      const forget = (request: LockRequest) =>
        Effect.sync(() => {
          if (holderOf(request.key) !== undefined) tokens.delete(request.key)
        })
      return {
        ...backend,
        acquire: (request) => Effect.andThen(forget(request), acquire(request)),
        tryAcquire
      }
    }
  },
  {
    name: "a renewal changes the fencing token",
    caughtBy: "a renewal does not change the fencing token",
    make: (store) => {
      let n = 1_000_000n
      return {
        ...store,
        renew: (request) =>
          Effect.map(store.renew(request), Option.map((validity) => ({ ...validity, fencingToken: ++n })))
      }
    }
  },
  {
    name: "a loss is never told",
    caughtBy: "the holder is told when its lease is lost",
    make: (store) => mapRequest(store, () => ({ onLost: () => {} }))
  },
  {
    name: "a release is told as a loss",
    caughtBy: "a release is not a loss",
    make: (store) => ({
      ...store,
      release: (request) => Effect.tap(store.release(request), () => Effect.sync(() => request.onLost("taken")))
    })
  },
  {
    name: "a refusal is told as a loss",
    caughtBy: "a release is not a loss",
    make: (store) => ({
      ...store,
      tryAcquire: (request) =>
        Effect.tap(
          store.tryAcquire(request),
          (grant) => Effect.sync(() => Option.isNone(grant) && request.onLost("taken"))
        )
    })
  },
  {
    name: "the tenure is not what was declared",
    caughtBy: "the declared tenure is the backend's, and check accepts ordinary requests",
    make: (store) => ({ ...store, tenure: "session" })
  },
  {
    name: "a lease that was revoked is renewed",
    caughtBy: "a lease that was revoked is not renewed, and others can have the key",
    make: (store) => {
      const validities = new WeakMap<LockRequest, Validity>()
      const backend = mapGrant(store, (grant, request) => {
        validities.set(request, grant)
        return grant
      })
      return {
        ...backend,
        renew: (request) =>
          Effect.map(backend.renew(request), Option.orElse(() => Option.fromUndefinedOr(validities.get(request)))),
        release: (request) => {
          validities.delete(request)
          return backend.release(request)
        }
      }
    }
  }
]
