import { LockBackendError } from "@dlock/core"
import { Effect, Option } from "effect"
import type { Backend, Mutant } from "./wrap.ts"
import { tokensOf } from "./wrap.ts"

const validity = { validFrom: 0, ttl: 600_000 }

const busy = "a reply that passes by itself is Unreachable for every verb, and passes"

const withReason = <A>(verb: Effect.Effect<A, LockBackendError>, operation: string) =>
  Effect.mapError(verb, () => new LockBackendError({ backend: "memory", operation, reason: "Rejected" }))

/** Asks the store again and again. */
const polling = (store: Backend, times: number): Backend => ({
  ...store,
  acquire: (request) =>
    Effect.gen(function*() {
      const asks = yield* Effect.forkChild(
        Effect.forever(Effect.andThen(Effect.ignore(store.inspect(request.key)), Effect.sleep(1000 / times)))
      )
      return yield* Effect.ensuring(store.acquire(request), Effect.sync(() => asks.interruptUnsafe()))
    })
})

/** What a client does when its server is another one, busy or full, and how much it asks. */
export const disturbed: ReadonlyArray<Mutant> = [
  {
    name: "a grant of the server before goes on beside one of the next server",
    of: "third",
    caughtBy: "a client that is led to another server does not hold a key twice",
    make: (store) => ({
      ...store,
      tryAcquire: (request) =>
        Effect.catch(store.tryAcquire(request), () => Effect.succeedSome({ ...validity, tokens: tokensOf(1n) })),
      renew: (request, renewal) => Effect.catch(store.renew(request, renewal), () => Effect.succeedSome(validity))
    })
  },
  ...([
    ["tryAcquire", (store) => ({ tryAcquire: (request) => withReason(store.tryAcquire(request), "tryAcquire") })],
    ["acquire", (store) => ({ acquire: (request) => withReason(store.acquire(request), "acquire") })],
    ["renew", (store) => ({ renew: (request, renewal) => withReason(store.renew(request, renewal), "renew") })],
    ["release", (store) => ({ release: (request) => withReason(store.release(request), "release") })],
    ["inspect", (store) => ({ inspect: (key) => withReason(store.inspect(key), "inspect") })],
    ["revoke", (store) => ({ revoke: (key, owner) => withReason(store.revoke(key, owner), "revoke") })],
    ["ping", (store) => ({ ping: withReason(store.ping, "ping") })]
  ] satisfies ReadonlyArray<readonly [string, (store: Backend) => Partial<Backend>]>).map(([verb, change]): Mutant => ({
    name: `${verb} fails for good when the server is busy`,
    of: "third",
    caughtBy: busy,
    make: (store) => ({ ...store, ...change(store) })
  })),
  {
    name: "renew tells a loss when the server is busy",
    of: "third",
    caughtBy: busy,
    make: (store) => ({
      ...store,
      renew: (request, renewal) => Effect.catch(store.renew(request, renewal), () => Effect.succeed(Option.none()))
    })
  },
  {
    name: "a waiter gives up when the server has no room for it",
    of: "third",
    caughtBy: "a waiter outlasts a server without room for it",
    make: (store) => ({
      ...store,
      acquire: (request) =>
        Effect.timeoutOrElse(store.acquire(request), {
          duration: "1 second",
          orElse: () =>
            Effect.fail(new LockBackendError({ backend: "memory", operation: "acquire", reason: "Unreachable" }))
        })
    })
  },
  {
    name: "every waiter polls",
    of: "third",
    caughtBy: "waiters send no more requests than declared",
    make: (store) => polling(store, 10)
  },
  {
    name: "inspect asks three times",
    of: "third",
    caughtBy: "it costs at most two requests, and ping one",
    make: (store) => ({
      ...store,
      inspect: (key) => Effect.andThen(Effect.andThen(store.ping, store.ping), store.inspect(key))
    })
  },
  {
    name: "ping asks twice",
    of: "third",
    caughtBy: "it costs at most two requests, and ping one",
    make: (store) => ({ ...store, ping: Effect.andThen(store.ping, store.ping) })
  },
  {
    name: "every waiter asks the server after a release",
    of: "third",
    caughtBy: "a release does not make every waiter ask the server",
    make: (store) => {
      const waiting = new Set<Effect.Effect<unknown, LockBackendError>>()
      return {
        ...store,
        acquire: (request) =>
          Effect.suspend(() => {
            const ask = Effect.ignore(store.inspect(request.key))
            waiting.add(ask)
            return Effect.tap(store.acquire(request), () => Effect.forEach([...waiting], (one) => one))
          })
      }
    }
  }
]
