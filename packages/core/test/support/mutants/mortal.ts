import { Effect } from "effect"
import type { Mutant } from "./wrap.ts"
import { mapGrant, mapRequest } from "./wrap.ts"

/** A client that dies. */
export const mortal: ReadonlyArray<Mutant> = [
  {
    name: "the grant of a client that died does not end",
    of: "third",
    caughtBy: "the key of a client that died is free within the ttl of its last renewal",
    make: (store) => mapGrant(mapRequest(store, () => ({ ttl: 86_400_000 })), (grant, { ttl }) => ({ ...grant, ttl }))
  },
  {
    name: "the grant of a waiter that died does not end",
    of: "third",
    caughtBy: "a waiter that died holds up the line no longer than declared",
    make: (store) => mapRequest(store, () => ({ ttl: 86_400_000 }))
  },
  {
    name: "renew hangs when the server is unreachable",
    of: "third",
    caughtBy: "no verb hangs when the server is unreachable",
    make: (store) => ({
      ...store,
      renew: (request, renewal) => Effect.catch(store.renew(request, renewal), () => Effect.never)
    })
  },
  {
    name: "tryAcquire answers none when the server is unreachable",
    of: "third",
    caughtBy: "no verb hangs when the server is unreachable",
    make: (store) => ({
      ...store,
      tryAcquire: (request) => Effect.catch(store.tryAcquire(request), () => Effect.succeedNone)
    })
  }
]
