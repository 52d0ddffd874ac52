import type { LockBackendError, LockRequest } from "@dlock/core"
import { Effect, Option } from "effect"
import type { Mutant } from "./wrap.ts"
import { mapGrant, tokensOf } from "./wrap.ts"

/** A request that is interrupted, or whose messages arrive twice or late. */
export const requests: ReadonlyArray<Mutant> = [
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
          Effect.suspend(() => answered.has(request) ? store.release(request) : Effect.succeed("gone" as const))
      }
    }
  },
  {
    name: "a request that arrives again is refused",
    caughtBy: "a request that arrives again gets its own grant",
    make: (store) => {
      const asked = new Set<string>()
      return {
        ...store,
        tryAcquire: (request) =>
          Effect.suspend(() => {
            const again = asked.has(request.owner)
            asked.add(request.owner)
            return again ? Effect.succeedNone : store.tryAcquire(request)
          })
      }
    }
  },
  {
    name: "a request that arrives again gets a smaller token",
    caughtBy: "a request that arrives again gets its own grant",
    make: (store) => {
      let n = 1000n
      return mapGrant(store, (grant) => ({ ...grant, tokens: tokensOf(--n) }))
    }
  },
  {
    name: "a request that arrives again needs as many releases",
    caughtBy: "a request that arrives again gets its own grant",
    make: (store) => {
      const grants = new Map<string, number>()
      return {
        ...mapGrant(store, (grant, { owner }) => {
          grants.set(owner, (grants.get(owner) ?? 0) + 1)
          return grant
        }),
        release: (request) =>
          Effect.suspend(() => {
            const left = (grants.get(request.owner) ?? 1) - 1
            grants.set(request.owner, left)
            return left > 0 ? Effect.succeed("released" as const) : store.release(request)
          })
      }
    }
  },
  {
    name: "a copy of a request ends the grant of the request",
    of: "server",
    caughtBy: "an earlier copy of a granted request changes nothing when it arrives",
    make: (store) => ({
      ...store,
      tryAcquire: (request) =>
        Effect.flatMap(
          store.inspect(request.key),
          ({ holder }) =>
            Option.isSome(holder) && holder.value.owner === request.owner
              ? Effect.as(store.release(request), Option.none())
              : store.tryAcquire(request)
        )
    })
  },
  ...[
    "a tryAcquire that arrives after its release takes nothing",
    "an acquire that arrives after its release takes neither the key nor a place in line"
  ].map((caughtBy): Mutant => ({
    name: `a release leaves no void mark (${caughtBy})`,
    of: "server",
    caughtBy,
    make: (store) => store
  })),
  {
    name: "a late renewal takes the key",
    of: "server",
    caughtBy: "a renewal that arrives after the release changes nothing",
    make: (store) => ({
      ...store,
      renew: (request, renewal) =>
        Effect.flatMap(store.inspect(request.key), ({ holder }) => {
          const owner = Option.isSome(holder) ? holder.value.owner ?? "" : request.owner
          return owner === request.owner
            ? store.renew(request, renewal)
            : Effect.as(Effect.andThen(store.revoke(request.key, owner), store.tryAcquire(request)), Option.none())
        })
    })
  },
  {
    name: "a late release frees the key of another owner",
    of: "server",
    caughtBy: "a release that arrives again does not free the key of the next holder",
    make: (store) => ({
      ...store,
      release: (request) =>
        Effect.flatMap(store.inspect(request.key), ({ holder }) => {
          const owner = Option.isSome(holder) ? holder.value.owner ?? request.owner : request.owner
          return owner === request.owner
            ? store.release(request)
            : Effect.as(store.revoke(request.key, owner), "gone" as const)
        })
    })
  }
]
