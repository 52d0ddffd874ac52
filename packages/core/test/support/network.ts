import { type Grant, type LockBackend, LockBackendError, type LockRequest } from "@dlock/core"
import { Deferred, Effect, Fiber, type Scope } from "effect"

type Backend = LockBackend["Service"]

const lost = (operation: string) => new LockBackendError({ backend: "memory", operation, reason: "Unreachable" })

/**
 * A store behind a network: what a client asked for goes on at the store's side when the client is cut off, and
 * the store can be asked who stands in line.
 */
export const make = (store: Backend) => {
  const waiting = new Map<string, number>()
  const count = (key: string, by: number) => Effect.sync(() => waiting.set(key, (waiting.get(key) ?? 0) + by))

  const client: Effect.Effect<{ readonly client: Backend, readonly cut: Effect.Effect<void> }, never, Scope.Scope> =
    Effect.gen(function*() {
      const scope = yield* Effect.scope
      const cut = yield* Deferred.make<never, LockBackendError>()
      const isCut = Effect.sync(() => Deferred.isDoneUnsafe(cut))
      const sent = new WeakSet<LockRequest>()
      const send = <A>(operation: string, verb: Effect.Effect<A, LockBackendError>) =>
        Effect.flatMap(isCut, (down) => down ? Effect.fail(lost(operation)) : verb)

      const acquire = (request: LockRequest): Effect.Effect<Grant, LockBackendError> =>
        Effect.gen(function*() {
          yield* count(request.key, 1)
          const there = yield* Effect.forkIn(Effect.ensuring(store.acquire(request), count(request.key, -1)), scope, {
            startImmediately: true
          })
          return yield* Effect.onInterrupt(
            Effect.raceFirst(Fiber.join(there), Deferred.await(cut)),
            () => Effect.flatMap(isCut, (down) => down ? Effect.void : Fiber.interrupt(there))
          )
        })

      return {
        client: {
          ...store,
          tryAcquire: (request) => {
            sent.add(request)
            return send("tryAcquire", store.tryAcquire(request))
          },
          acquire: (request) => {
            sent.add(request)
            return send("acquire", acquire(request))
          },
          renew: (request) => send("renew", store.renew(request)),
          release: (request) =>
            Effect.flatMap(
              isCut,
              (down) => down && !sent.has(request) ? Effect.succeed(false) : send("release", store.release(request))
            )
        },
        cut: Effect.asVoid(Deferred.fail(cut, lost("acquire")))
      }
    })

  return { client, inLine: (key: string) => Effect.sync(() => waiting.get(key) ?? 0) }
}
