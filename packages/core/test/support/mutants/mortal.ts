import { Duration, Effect } from "effect"
import type { Mutant } from "./wrap.ts"
import { mapGrant, mapRequest } from "./wrap.ts"

/** A client that dies. */
export const mortal: ReadonlyArray<Mutant> = [
  {
    name: "the lease of a client that died does not end",
    onlyMortal: true,
    caughtBy: "the key of a client that died becomes free within the ttl of its last renewal",
    make: (store) =>
      mapGrant(mapRequest(store, () => ({ ttl: Duration.days(1) })), (grant, { ttl }) => ({ ...grant, ttl }))
  },
  {
    name: "the turn of a waiter that died does not end",
    onlyMortal: true,
    caughtBy: "a waiter that died holds up the line no longer than declared",
    make: (store) => mapRequest(store, () => ({ ttl: Duration.days(1) }))
  },
  {
    name: "renew hangs when the server is out of reach",
    onlyMortal: true,
    caughtBy: "no verb hangs when the server is out of reach",
    make: (store) => ({ ...store, renew: (request) => Effect.catch(store.renew(request), () => Effect.never) })
  },
  {
    name: "tryAcquire answers none when the server is out of reach",
    onlyMortal: true,
    caughtBy: "no verb hangs when the server is out of reach",
    make: (store) => ({
      ...store,
      tryAcquire: (request) => Effect.catch(store.tryAcquire(request), () => Effect.succeedNone)
    })
  },
  {
    name: "a release with nothing to give back asks the server",
    onlyMortal: true,
    caughtBy: "no verb hangs when the server is out of reach",
    make: (store) => ({
      ...store,
      release: (request) =>
        Effect.catch(
          Effect.andThen(store.renew(request), store.release(request)),
          (error) => Effect.delay(Effect.fail(error), "5 seconds")
        )
    })
  }
]
