import type { LockBackendError, LockRequest, Validity } from "@dlock/core"
import { Clock, Effect, Option } from "effect"
import type { Mutant } from "./wrap.ts"
import { mapGrant, mapRequest, shift, withHolders, withLine } from "./wrap.ts"

/** What a grant says of itself, and how it ends. */
export const grant: ReadonlyArray<Mutant> = [
  {
    name: "any owner can release",
    caughtBy: "only the owner releases",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return { ...backend, release: (request) => backend.release(holderOf(request.key) ?? request) }
    }
  },
  {
    name: "a release that arrives again frees the key of the next holder",
    caughtBy: "a release that arrives again is a no-op, also when another owner holds the key by now",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      const released = new Set<string>()
      return {
        ...backend,
        release: (request) => {
          const again = released.has(request.owner)
          released.add(request.owner)
          return backend.release(again ? holderOf(request.key) ?? request : request)
        }
      }
    }
  },
  {
    name: "release always answers released",
    caughtBy: "the release of an owner that never asked does nothing to a free key",
    make: (store) => ({ ...store, release: (request) => Effect.as(store.release(request), "released" as const) })
  },
  {
    name: "release always answers gone",
    caughtBy: "acquire of a free key does not wait",
    make: (store) => ({ ...store, release: (request) => Effect.as(store.release(request), "gone" as const) })
  },
  {
    name: "release does nothing",
    caughtBy: "acquire of a free key does not wait",
    make: (store) => ({ ...store, release: () => Effect.succeed("released") })
  },
  {
    name: "renew creates the grant again",
    caughtBy: "a grant that ended is not renewed, and the renewal does not create it again",
    make: (store) => ({
      ...store,
      renew: (request, renewal) =>
        Effect.flatMap(
          store.renew(request, renewal),
          (validity): Effect.Effect<Option.Option<Validity>, LockBackendError> =>
            Option.isSome(validity) ? Effect.succeed(validity) : store.tryAcquire({ ...request })
        )
    })
  },
  {
    name: "renew after the release creates the grant again",
    caughtBy: "a renewal that arrives beside or after the release does not take the key",
    make: (store) => {
      const released = new Set<string>()
      return {
        ...store,
        release: (request) => {
          released.add(request.owner)
          return store.release(request)
        },
        renew: (request, renewal) =>
          released.has(request.owner) ? store.tryAcquire({ ...request }) : store.renew(request, renewal)
      }
    }
  },
  {
    name: "any owner can renew",
    caughtBy: "a renewal of an owner that does not hold the key changes nothing",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return { ...backend, renew: (request, renewal) => backend.renew(holderOf(request.key) ?? request, renewal) }
    }
  },
  {
    name: "renew answers without extending",
    caughtBy: "a grant that is renewed outlives its ttl",
    make: (store) => ({
      ...store,
      renew: (request) =>
        Effect.map(
          Clock.monotonicTimeNanos,
          (nanos) => Option.some({ validFrom: Number(nanos) / 1e6, ttl: request.ttl })
        )
    })
  },
  {
    name: "renew asks for the first ttl",
    caughtBy: "a grant is renewed for the ttl that its request has then",
    make: (store) => {
      const copies = new WeakMap<LockRequest, LockRequest>()
      const copyOf = (request: LockRequest): LockRequest => {
        const copy = copies.get(request) ?? { ...request }
        copies.set(request, copy)
        return copy
      }
      return {
        ...store,
        tryAcquire: (request) => store.tryAcquire(copyOf(request)),
        acquire: (request) => store.acquire(copyOf(request)),
        renew: (request, renewal) => store.renew(copyOf(request), renewal),
        release: (request) => store.release(copyOf(request))
      }
    }
  },
  {
    name: "renew by a former holder takes the key back",
    caughtBy: "a grant is not renewed once another owner has the key",
    make: (store) => {
      const { backend, holderOf } = withHolders(store)
      return {
        ...backend,
        renew: (request, renewal) =>
          Effect.flatMap(backend.renew(request, renewal), (validity) => {
            const holder = holderOf(request.key)
            return Option.isSome(validity) || holder === undefined || holder === request
              ? Effect.succeed(validity)
              : Effect.andThen(backend.release(holder), backend.tryAcquire({ ...request }))
          })
      }
    }
  },
  {
    name: "a grant never ends",
    caughtBy: "a grant that is not renewed ends at its ttl with an empty line",
    make: (store) => mapGrant(mapRequest(store, () => ({ ttl: 86_400_000 })), (grant, { ttl }) => ({ ...grant, ttl }))
  },
  {
    name: "a grant ends before its ttl",
    caughtBy: "a grant that is not renewed ends at its ttl, not before, and the next in line has the key",
    make: (store) =>
      mapGrant(
        mapRequest(store, ({ ttl }) => ({ ttl: ttl / 2 })),
        (grant, { ttl }) => ({ ...grant, ttl })
      )
  },
  {
    name: "a grant ends 100 milliseconds late",
    caughtBy: "a grant that is not renewed ends at its ttl, not before, and the next in line has the key",
    make: (store) =>
      mapGrant(
        mapRequest(store, ({ ttl }) => ({ ttl: ttl + 100 })),
        (grant, { ttl }) => ({ ...grant, ttl })
      )
  },
  {
    name: "the ttl is ignored",
    caughtBy: "a grant tells from when and for how long it is good, and it is",
    make: (store) => mapRequest(store, () => ({ ttl: 600_000 }))
  },
  {
    name: "validity counts from after the answer",
    caughtBy: "a grant tells from when and for how long it is good, and it is",
    make: (store) => mapGrant(store, (grant) => shift(grant, 1000))
  },
  {
    name: "a grant that ends with a waiter in line stays until the next request",
    caughtBy: "a waiter that does not use its grant holds up the line for its ttl",
    make: (store) => withLine(store, (waiting) => waiting.splice(0, 1))
  },
  {
    name: "a loss is never told",
    caughtBy: "the holder is told when its grant is lost",
    make: (store) => mapRequest(store, () => ({ onLost: () => {} }))
  },
  {
    name: "a release is told as a loss",
    caughtBy: "a release and a refusal are not a loss",
    make: (store) => ({
      ...store,
      release: (request) => Effect.tap(store.release(request), () => Effect.sync(() => request.onLost("taken")))
    })
  },
  {
    name: "a refusal is told as a loss",
    caughtBy: "a release and a refusal are not a loss",
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
    name: "freedBy is not as declared",
    caughtBy: "freedBy and tellsWanted are as declared, and check accepts ordinary requests",
    make: (store) => ({ ...store, freedBy: "session" })
  },
  {
    name: "a grant that was ended on the server is renewed",
    caughtBy: "a grant that was ended on the server is not renewed, and another owner can have the key",
    make: (store) => {
      const validities = new WeakMap<LockRequest, Validity>()
      const backend = mapGrant(store, (grant, request) => {
        validities.set(request, grant)
        return grant
      })
      return {
        ...backend,
        renew: (request, renewal) =>
          Effect.map(
            backend.renew(request, renewal),
            Option.orElse(() => Option.fromUndefinedOr(validities.get(request)))
          ),
        release: (request) => {
          validities.delete(request)
          return backend.release(request)
        }
      }
    }
  }
]
