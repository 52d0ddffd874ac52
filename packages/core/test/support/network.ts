import { type Grant, type LockBackend, LockBackendError, type LockRequest } from "@dlock/core"
import { Deferred, Effect, Fiber, Latch, type Scope } from "effect"

type Backend = LockBackend["Service"]

const unreachable = (operation: string) => new LockBackendError({ backend: "memory", operation, reason: "Unreachable" })

/** A server to which messages may come late: it remembers which requests were released. */
export const withVoidMarks = (store: Backend): Backend => {
  const released = new Set<string>()
  const rejected = new LockBackendError({ backend: "memory", operation: "acquire", reason: "Rejected" })
  const unlessReleased = <A>(
    { owner }: LockRequest,
    verb: Effect.Effect<A, LockBackendError>,
    otherwise: Effect.Effect<A, LockBackendError>
  ) => Effect.suspend(() => released.has(owner) ? otherwise : verb)
  return {
    ...store,
    tryAcquire: (request) => unlessReleased(request, store.tryAcquire(request), Effect.succeedNone),
    acquire: (request) => unlessReleased(request, store.acquire(request), Effect.fail(rejected)),
    release: (request) =>
      Effect.suspend(() => {
        released.add(request.owner)
        return store.release(request)
      })
  }
}

/** What happens to the messages of one client. */
export class Road {
  requests = 0
  isCut = false
  /** The server answers that it cannot serve now, or is another one. */
  refuses = false
  readonly room = Latch.makeUnsafe(true)
  readonly whenCut = Deferred.makeUnsafe<never, LockBackendError>()
  /** What was sent over connections that are held back. */
  held: Array<Effect.Effect<unknown>> | undefined
  whenBroken = Deferred.makeUnsafe<void>()
  private late: Array<Effect.Effect<unknown>> = []

  cut(): void {
    this.isCut = true
    Deferred.doneUnsafe(this.whenCut, Effect.fail(unreachable("acquire")))
  }

  holdBack(): void {
    this.held = []
    this.whenBroken = Deferred.makeUnsafe()
  }

  breakOff(): void {
    this.late = this.held ?? []
    this.held = undefined
    Deferred.doneUnsafe(this.whenBroken, Effect.void)
  }

  deliver(): Effect.Effect<void> {
    return Effect.forEach(this.late, (message) => Effect.forkDetach(message, { startImmediately: true }), {
      discard: true
    })
  }
}

/** Makes the network in front of a server. What arrives is a copy of what was sent. */
export const make = (server: Backend) => {
  const waiting = new Map<string, number>()
  const count = (key: string, by: number) => Effect.sync(() => waiting.set(key, (waiting.get(key) ?? 0) + by))

  const send = <A>(road: Road, operation: string, verb: Effect.Effect<A, LockBackendError>) =>
    Effect.suspend(() => {
      road.requests++
      if (road.isCut || road.refuses) return Effect.fail(unreachable(operation))
      if (road.held === undefined) return verb
      road.held.push(Effect.exit(verb))
      // The driver sends again what was not answered before its connection broke.
      return Effect.andThen(Deferred.await(road.whenBroken), verb)
    })

  /** An acquire goes on at the server's side when its client is cut off. */
  const acquire = (road: Road, scope: Scope.Scope) => (request: LockRequest): Effect.Effect<Grant, LockBackendError> =>
    Effect.gen(function*() {
      yield* road.room.await
      yield* count(request.key, 1)
      const there = yield* Effect.forkIn(
        Effect.ensuring(server.acquire({ ...request }), count(request.key, -1)),
        scope,
        {
          startImmediately: true
        }
      )
      return yield* Effect.onInterrupt(
        Effect.raceFirst(Fiber.join(there), Deferred.await(road.whenCut)),
        () => Effect.suspend(() => road.isCut ? Effect.void : Fiber.interrupt(there))
      )
    })

  const client: Effect.Effect<{ readonly client: Backend, readonly road: Road }, never, Scope.Scope> = Effect.map(
    Effect.scope,
    (scope) => {
      const road = new Road()
      return {
        road,
        client: {
          ...server,
          tryAcquire: (request) => send(road, "tryAcquire", server.tryAcquire({ ...request })),
          acquire: (request) => send(road, "acquire", acquire(road, scope)(request)),
          renew: (request, renewal) => send(road, "renew", server.renew({ ...request }, renewal)),
          release: (request) => send(road, "release", server.release({ ...request })),
          inspect: (key) => send(road, "inspect", server.inspect(key)),
          revoke: (key, owner) => send(road, "revoke", server.revoke(key, owner)),
          ping: send(road, "ping", server.ping)
        }
      }
    }
  )

  return { client, inLine: (key: string) => Effect.sync(() => waiting.get(key) ?? 0) }
}
