import type { LockRequest } from "@dlock/core"
import { Effect, Fiber, Option } from "effect"
import type { GrantEffect, Mutant } from "./wrap.ts"
import { tokensOf } from "./wrap.ts"

const isPermit = ({ key }: Pick<LockRequest, "key">): boolean => key.includes("#permit-")

/** Of what permits are made. */
export const permits: ReadonlyArray<Mutant> = [
  {
    name: "a permit is granted a second time",
    caughtBy: "at most so many permits are in use over all clients",
    make: (store) => ({
      ...store,
      tryAcquire: (request) =>
        Effect.map(
          store.tryAcquire(request),
          Option.orElse(() =>
            isPermit(request)
              ? Option.some({ validFrom: 0, ttl: request.ttl, tokens: tokensOf(0n) })
              : Option.none()
          )
        )
    })
  },
  {
    name: "the last in line for permits goes first",
    caughtBy: "permits are granted in the order in which clients ask, whatever their number",
    make: (store) => {
      const waiting: Array<LockRequest> = []
      return {
        ...store,
        acquire: (request) => {
          if (!request.key.endsWith("#permits")) return store.acquire(request)
          waiting.push(request)
          const poll: GrantEffect = Effect.flatMap(
            Effect.suspend(() => waiting.at(-1) === request ? store.tryAcquire(request) : Effect.succeedNone),
            Option.match({ onNone: () => Effect.andThen(Effect.yieldNow, poll), onSome: Effect.succeed })
          )
          return Effect.ensuring(poll, Effect.sync(() => waiting.splice(waiting.indexOf(request), 1)))
        }
      }
    }
  },
  {
    name: "an interrupted attempt at a permit takes it all the same",
    caughtBy: "an interruption before or after any verb leaves no permit taken and no one in line",
    make: (store) => {
      const forgotten = new WeakSet<LockRequest>()
      return {
        ...store,
        tryAcquire: (request) =>
          Effect.onInterrupt(
            Effect.flatMap(Effect.forkDetach(store.tryAcquire(request)), Fiber.join),
            () => Effect.sync(() => forgotten.add(request))
          ),
        release: (request) => forgotten.has(request) ? Effect.succeed("released") : store.release(request)
      }
    }
  },
  {
    name: "a permit of a client that died stays taken",
    caughtBy: "the permits of a client that died are free, and those behind it in line go on",
    of: "third",
    make: (client) => ({
      ...client,
      tryAcquire: (request) =>
        client.tryAcquire({ ...request, ttl: isPermit(request) ? request.ttl * 100 : request.ttl })
    })
  },
  {
    name: "a client that leads has its key for too long",
    caughtBy: "when a leader dies, another one leads",
    of: "third",
    make: (client) => ({
      ...client,
      acquire: (request) => client.acquire({ ...request, ttl: request.ttl * 100 }),
      renew: (request, renewal) => client.renew({ ...request, ttl: request.ttl * 100 }, renewal)
    })
  }
]
