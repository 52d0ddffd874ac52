import type { LockRequest, Tokens, Validity } from "@dlock/core"
import { Effect, Option } from "effect"
import type { Backend, Mutant } from "./wrap.ts"
import { mapGrant, tokensOf, withHolders } from "./wrap.ts"

/** Changes the tokens that a renewal tells or gives. */
const mapRenewed = (
  store: Backend,
  change: (tokens: Tokens | undefined, request: LockRequest, spare: number | undefined) => Tokens | undefined
): Backend => ({
  ...store,
  renew: (request, renewal) =>
    Effect.map(
      store.renew(request, renewal),
      Option.map((validity): Validity => ({ ...validity, tokens: change(validity.tokens, request, renewal.spare) }))
    )
})

/** Fencing tokens. */
export const tokens: ReadonlyArray<Mutant> = [
  {
    name: "the fencing token is constant",
    caughtBy: "fencing tokens grow over owners, clients and ways of getting the key",
    make: (store) => mapGrant(store, (grant) => ({ ...grant, tokens: tokensOf(1n) }))
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
            (grant) => Effect.sync(() => Option.isSome(grant) && last.set(request.key, grant.value.tokens.first))
          ),
        acquire: (request) =>
          Effect.map(store.acquire(request), (grant) => ({
            ...grant,
            tokens: tokensOf(last.get(request.key) ?? grant.tokens.first)
          }))
      }
    }
  },
  {
    name: "the fencing token starts again when a grant ended by itself",
    caughtBy: "fencing tokens grow over grants that ended by themselves",
    make: (store) => {
      const last = new Map<string, bigint>()
      const { backend, holderOf } = withHolders(mapRenewed(store, () => undefined))
      const { acquire, tryAcquire } = mapGrant(backend, (grant, { key }) => {
        const token = (last.get(key) ?? 0n) + 1n
        last.set(key, token)
        return { ...grant, tokens: tokensOf(token) }
      })
      const forget = (request: LockRequest) =>
        Effect.sync(() => {
          if (holderOf(request.key) !== undefined) last.delete(request.key)
        })
      return {
        ...backend,
        acquire: (request) => Effect.andThen(forget(request), acquire(request)),
        tryAcquire
      }
    }
  },
  {
    name: "reserved tokens are given again on a hand-over",
    caughtBy: "tokens that a grant reserves lie below those of every later grant",
    make: (store) =>
      mapGrant(
        store,
        (grant, { spare }) => ({ ...grant, tokens: { first: grant.tokens.first, spare: spare === 0 ? 0 : spare * 2 } })
      )
  },
  {
    name: "more tokens are told than were reserved",
    caughtBy: "tokens that a grant reserves lie below those of every later grant",
    make: (store) => {
      let n = 0n
      return mapGrant(store, (grant, { spare }) => ({ ...grant, tokens: { first: ++n, spare } }))
    }
  },
  {
    name: "no tokens are reserved",
    caughtBy: "the first grant of a key carries spare tokens",
    make: (store) => mapGrant(store, (grant) => ({ ...grant, tokens: tokensOf(grant.tokens.first) }))
  },
  {
    name: "a renewal changes the fencing token",
    caughtBy: "a renewal that does not ask for tokens leaves them as they are",
    make: (store) => {
      let n = 1_000_000n
      return mapRenewed(store, (tokens, _, spare) => spare === undefined ? tokensOf(++n) : tokens)
    }
  },
  {
    name: "a renewal gives the tokens of the grant again",
    caughtBy: "tokens of a renewal are greater than those of the grant and lie below those of every later grant",
    make: (store) => {
      const given = new WeakMap<LockRequest, Tokens>()
      const backend = mapGrant(store, (grant, request) => {
        given.set(request, grant.tokens)
        return grant
      })
      return mapRenewed(backend, (tokens, request) => tokens && given.get(request))
    }
  },
  {
    name: "tokens of a renewal lie above the next grant's",
    caughtBy: "tokens of a renewal are greater than those of the grant and lie below those of every later grant",
    make: (store) => mapRenewed(store, (tokens) => tokens && { ...tokens, first: tokens.first + 1000n })
  },
  {
    name: "a renewal never gives tokens",
    caughtBy: "tokens of a renewal are greater than those of the grant and lie below those of every later grant",
    make: (store) => mapRenewed(store, () => undefined)
  }
]
