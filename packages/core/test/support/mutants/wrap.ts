import type { Grant, LockBackend, LockBackendError, LockRequest } from "@dlock/core"
import { Deferred, Effect, Option } from "effect"

export type Backend = LockBackend["Service"]

/** A memory backend that is broken in one way, and the case of the suite that must notice. */
export interface Mutant {
  readonly name: string
  readonly caughtBy: string
  readonly make: (store: Backend) => Backend
  /** What it breaks: the clients of the suite, or the third client, or the server at the other end of its network. */
  readonly of?: "clients" | "third" | "server"
  /** Breaks a backend that has no verb that it may leave out. */
  readonly isPoor?: true
}

export type GrantEffect = Effect.Effect<Grant, LockBackendError>

/** Changes the requests on their way to the store; the same request is changed to the same object. */
export const mapRequest = (store: Backend, change: (request: LockRequest) => Partial<LockRequest>): Backend => {
  const changed = new WeakMap<LockRequest, LockRequest>()
  const to = (request: LockRequest): LockRequest => {
    const known = changed.get(request) ?? { ...request, ...change(request) }
    changed.set(request, known)
    return known
  }
  return {
    ...store,
    tryAcquire: (request) => store.tryAcquire(to(request)),
    acquire: (request) => store.acquire(to(request)),
    renew: (request, renewal) => store.renew(to(request), renewal),
    release: (request) => store.release(to(request))
  }
}

export const mapKey = (store: Backend, change: (key: string) => string): Backend =>
  mapRequest(store, ({ key }) => ({ key: change(key) }))

export const mapGrant = (store: Backend, change: (grant: Grant, request: LockRequest) => Grant): Backend => ({
  ...store,
  tryAcquire: (request) => Effect.map(store.tryAcquire(request), Option.map((grant) => change(grant, request))),
  acquire: (request) => Effect.map(store.acquire(request), (grant) => change(grant, request))
})

/** Tells `onGrant` of every grant and `onRelease` of every release that freed the key. */
export const observe = (store: Backend, on: {
  readonly granted: (request: LockRequest, grant: Grant) => void
  readonly released: (request: LockRequest) => void
}): Backend => ({
  ...mapGrant(store, (grant, request) => {
    on.granted(request, grant)
    return grant
  }),
  release: (request) =>
    Effect.tap(store.release(request), (answer) => Effect.sync(() => answer === "released" && on.released(request)))
})

/** Knows the holder of each key. */
export const withHolders = (store: Backend) => {
  const holders = new Map<string, LockRequest>()
  const backend = observe(store, {
    granted: (request) => holders.set(request.key, request),
    released: (request) => holders.delete(request.key)
  })
  return { backend, holderOf: (key: string) => holders.get(key) }
}

/** A line of its own over `tryAcquire`, woken by releases; `next` chooses the waiters that are woken. */
export const withLine = (
  store: Backend,
  next: (waiting: Array<Deferred.Deferred<void>>) => ReadonlyArray<Deferred.Deferred<void>>
): Backend => {
  const lines = new Map<string, Array<Deferred.Deferred<void>>>()
  const acquire = (request: LockRequest): GrantEffect =>
    Effect.flatMap(
      store.tryAcquire(request),
      Option.match({
        onSome: Effect.succeed,
        onNone: () =>
          Effect.suspend(() => {
            const turn = Deferred.makeUnsafe<void>()
            const waiting = lines.get(request.key) ?? []
            lines.set(request.key, waiting)
            waiting.push(turn)
            return Effect.andThen(
              Effect.onInterrupt(
                Effect.andThen(Deferred.await(turn), Effect.yieldNow),
                () => Effect.sync(() => waiting.includes(turn) && waiting.splice(waiting.indexOf(turn), 1))
              ),
              acquire(request)
            )
          })
      })
    )
  return {
    ...store,
    acquire,
    release: (request) =>
      Effect.tap(
        store.release(request),
        (answer) =>
          Effect.sync(() => {
            if (answer === "released") {
              for (const turn of next(lines.get(request.key) ?? [])) Deferred.doneUnsafe(turn, Effect.void)
            }
          })
      )
  }
}

export const shift = (grant: Grant, by: number): Grant => ({ ...grant, validFrom: grant.validFrom + by })

export const tokensOf = (token: bigint) => ({ first: token, spare: 0 })
