/**
 * What the tests of the backend share.
 */
import type { LockBackend, LockRequest, LossReason } from "@dlock/core"
import { assert } from "@effect/vitest"
import { Duration, Effect, Fiber, Option, Scheduler } from "effect"
import * as Backend from "../src/internal/backend.ts"
import * as Names from "../src/internal/names.ts"
import { parseClient } from "../src/internal/options.ts"
import type { ClientOptions } from "../src/MysqlLock.ts"
import * as FakeServer from "./FakeServer.ts"

/** The name that a key has on the server. */
export const nameOf = (key: string): string => Names.of("", key)

let attempts = 0

/** A request as core makes them, which remembers what it was told. */
export const newRequest = (
  key: string,
  ttl: Duration.Input = "30 seconds"
): LockRequest & { readonly losses: Array<LossReason> } => {
  const losses: Array<LossReason> = []
  return {
    key,
    owner: `test/${++attempts}`,
    ttl: Duration.toMillis(ttl),
    spare: 0,
    losses,
    onLost: (reason) => {
      losses.push(reason)
    },
    onWanted: () => {}
  }
}

export const backendOf = (fake: FakeServer.FakeServer, options: ClientOptions = {}) =>
  Effect.flatMap(parseClient(options), (settings) => Backend.make(fake.client, settings))

/** Lets everything happen that needs no time. */
export const turns = Effect.repeat(Effect.yieldNow, { times: 50 })

export const expectSome = <A>(option: Option.Option<A>): A =>
  Option.getOrElse(option, () => assert.fail("what is free is granted, and what is held is renewed"))

/** Starts it, and goes on. */
export const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkScoped(effect, { startImmediately: true })

/** A server, and a backend on it. */
export const alone = Effect.gen(function*() {
  const fake = FakeServer.make()
  return { fake, backend: yield* backendOf(fake) }
})

/** Takes a key that is free. */
export const hold = Effect.fnUntraced(
  function*(backend: LockBackend["Service"], key: string, ttl?: Duration.Input) {
    const request = newRequest(key, ttl)
    expectSome(yield* backend.tryAcquire(request))
    return request
  }
)

/** A backend where another program holds a key. */
export const contended = Effect.fnUntraced(function*(key: string) {
  const { backend: other, fake } = yield* alone
  const holder = yield* hold(other, key)
  return { fake, holder, other, backend: yield* backendOf(fake) }
})

/** Asks for a key, and goes on when nothing more happens without time or the other program. */
export const lineUp = Effect.fnUntraced(function*(backend: LockBackend["Service"], key: string) {
  const request = newRequest(key)
  const waiting = yield* start(backend.acquire(request))
  yield* turns
  return { request, waiting }
})

/** A backend that waited for a key, and has it from the other program. */
export const handedOver = Effect.fnUntraced(function*(key: string) {
  const { backend, fake, holder, other } = yield* contended(key)
  const { request, waiting } = yield* lineUp(backend, key)
  yield* other.release(holder)
  yield* Fiber.join(waiting)
  return { backend, fake, other, request }
})

/** The server ends the session that first sends a statement with these words, and does not execute it. */
export const endOnce = (fake: FakeServer.FakeServer, words: string): void => {
  let isNext = true
  fake.fault = (sql, session) => {
    if (isNext && sql.includes(words)) {
      isNext = false
      fake.kill(session.id)
    }
    return undefined
  }
}

/** The session that is open for longest. */
export const firstSession = (fake: FakeServer.FakeServer): FakeServer.FakeSession =>
  fake.sessions()[0] ?? assert.fail("a session is open")

/** What the sessions were asked that are open now, if it contains `what`. */
export const asked = (fake: FakeServer.FakeServer, what = ""): number =>
  fake.sessions().flatMap((session) => session.statements).filter((sql) => sql.includes(what)).length

/** Effect may yield between any two steps; here it does, after every `operations`. */
export const yielding = <A, E>(effect: Effect.Effect<A, E>, operations: number): Effect.Effect<A, E> =>
  Effect.provideService(effect, Scheduler.MaxOpsBeforeYield, operations)
