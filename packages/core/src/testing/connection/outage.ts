import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { passes } from "../../backend/Errors.ts"
import type { LockRequest } from "../../LockBackend.ts"
import type { LockBackendError } from "../../LockError.ts"
import { persist } from "../Time.ts"
import type { Client, Definition, Kit } from "./Case.ts"
import { expectFree, mustFail, patience, patient, within } from "./Case.ts"
import { mostPerSecond } from "./connecting.ts"
import * as strangers from "./strangers.ts"

const verbs = (client: Client, request: () => LockRequest) =>
  Object.entries<Effect.Effect<unknown, LockBackendError>>({
    tryAcquire: client.tryAcquire(request()),
    acquire: client.acquire(request()),
    inspect: client.inspect(request().key),
    ping: client.ping
  })

/** Every verb must fail by the command timeout, with a failure that passes by itself. */
const expectAway = <O extends object>({ commandTimeout, request, slack }: Kit<O>, client: Client) =>
  Effect.forEach(verbs(client, request), ([verb, effect]) =>
    Effect.gen(function*() {
      const error = yield* within(
        mustFail(effect, `${verb} fails during an outage`),
        commandTimeout + slack,
        `${verb} fails during an outage`
      )
      assert.isTrue(passes(error) || error.reason === "Unsupported", `${verb}: ${error.message}`)
    }), { concurrency: "unbounded", discard: true })

const expectBack = <O extends object>({ request }: Kit<O>, client: Client) =>
  Effect.gen(function*() {
    const again = request()
    yield* within(client.acquire(again), patience, "locks are had after the outage")
    yield* client.release(again)
  })

const outage = (millis: number): Definition["run"] => (kit) =>
  Effect.gen(function*() {
    const server = yield* kit.ownServer
    const client = yield* persist(kit.connect(server))
    yield* Effect.orDie(server.kill)
    yield* expectAway(kit, client)
    yield* Effect.sleep(millis)
    yield* Effect.orDie(server.start)
    yield* expectBack(kit, patient(client))
  })

const hours = 3_600_000

/** A clock whose wall time somebody sets; what is monotonic goes on. */
const settable = (clock: Clock.Clock) => {
  let offset = 0
  const set = (millis: number) => Effect.sync(() => void (offset = millis))
  const wall: Clock.Clock = {
    ...clock,
    sleep: (duration) => clock.sleep(duration),
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: clock.monotonicTimeNanos,
    currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + offset,
    currentTimeMillis: Effect.sync(() => clock.currentTimeMillisUnsafe() + offset),
    currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + BigInt(offset) * 1_000_000n,
    currentTimeNanos: Effect.sync(() => clock.currentTimeNanosUnsafe() + BigInt(offset) * 1_000_000n)
  }
  return { set, wall }
}

export const outages: ReadonlyArray<Definition> = [
  { name: "back after an outage of a second", run: outage(1000) },
  { name: "back after an outage of a minute", slow: true, run: outage(60_000) },
  {
    name: "a frozen server fails every verb within the command timeout, and nothing stays of what timed out",
    run: (kit) =>
      Effect.gen(function*() {
        const server = yield* kit.ownServer
        const client = yield* persist(kit.connect(server))
        const other = yield* kit.client(server)
        const request = kit.request()
        yield* Effect.orDie(server.pause)
        const asking = mustFail(client.tryAcquire(request), "a frozen server gives nothing")
        yield* within(asking, kit.commandTimeout + kit.slack, "it fails")
        yield* expectAway(kit, client)
        yield* Effect.orDie(server.resume)
        yield* within(persist(client.release(request)), patience, "the release is answered")
        yield* expectFree(kit, other, request.key, "the key is free")
        yield* expectBack(kit, patient(client))
      })
  },
  {
    name: "an outage is met with a pause between attempts",
    run: (kit) =>
      Effect.gen(function*() {
        const server = yield* kit.ownServer
        const client = yield* kit.client(server)
        yield* Effect.orDie(server.kill)
        const seconds = 2
        const accepted = yield* Effect.scoped(Effect.gen(function*() {
          const stranger = yield* strangers.hangingUp(server.port)
          yield* Effect.forkScoped(Effect.ignore(client.acquire(kit.request())))
          yield* Effect.sleep(seconds * 1000)
          return yield* stranger.accepted
        }))
        assert.isAtMost(accepted, mostPerSecond * (1 + seconds), "connections while the server hangs up")
        yield* Effect.orDie(server.start)
        yield* expectBack(kit, client)
      })
  },
  {
    name: "many layers are back at once",
    run: (kit) =>
      Effect.gen(function*() {
        const server = yield* kit.server
        const road = yield* kit.road(server)
        const clients = yield* Effect.forEach(Array.from({ length: 10 }), () => kit.client(road), { concurrency: 5 })
        yield* road.refuse
        yield* Effect.sleep("1 second")
        yield* road.pass
        yield* Effect.forEach(clients, (client) => expectBack(kit, client), { concurrency: "unbounded" })
      })
  },
  {
    name: "a clock that is set forth and back ends nothing and hangs nothing",
    run: (kit) =>
      Effect.gen(function*() {
        const { set, wall } = settable(yield* Clock.Clock)
        const server = yield* kit.server
        yield* Effect.gen(function*() {
          const client = yield* kit.client(server)
          const held = kit.request()
          yield* client.acquire(held)
          for (const offset of [6 * hours, -6 * hours, 0]) {
            yield* set(offset)
            const renewed = yield* within(client.renew(held, { fresh: true }), patience, "a renewal is answered")
            assert.isTrue(Option.isSome(renewed), "the key is still held")
            yield* expectBack(kit, client)
          }
          yield* client.release(held)
        }).pipe(Effect.provideService(Clock.Clock, wall))
      })
  }
]
