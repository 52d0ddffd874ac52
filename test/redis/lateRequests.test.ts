/**
 * Law 5: a request that reaches the server after its attempt was released takes nothing.
 */
import type { LockRequest } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Option } from "effect"
import { newRequest, persist } from "./client.ts"
import { relay } from "./relay.ts"
import { RedisServer } from "./support.ts"

const keysOf = (key: string) =>
  Effect.flatMap(RedisServer, ({ bare }) => Effect.promise(async () => (await bare.keys(`*${key}*`)).toSorted()))

const setup = Effect.gen(function*() {
  const { server } = yield* RedisServer
  const road = yield* relay(server)
  const lock = yield* persist(RedisLock.make({ addrs: [road.addr], commandTimeout: "500 millis" }))
  // A server that was restarted would not have the scripts, and a late EVALSHA would come to nothing for that reason.
  yield* Effect.forEach([0, 1], () =>
    Effect.gen(function*() {
      const warm = newRequest("late/warm")
      yield* lock.tryAcquire(warm)
      yield* lock.release(warm)
    }))
  // As core does: it is asked for until it is answered.
  const release = (request: LockRequest) => Effect.eventually(lock.release(request))
  return { ...road, lock, release }
})

/** Long enough for what has thawed to arrive. */
const arrival = Effect.sleep("100 millis")

/** Requests are valid for the command timeout and a second. */
const validity = Effect.sleep("1600 millis")

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "1 minute" })("a request that arrives late", (it) => {
  for (const round of [1, 2, 3, 4, 5]) {
    it.effect(`takes nothing after its release (${round})`, () =>
      Effect.gen(function*() {
        const { breakOff, freeze, lock, release, thaw } = yield* setup
        const request = newRequest(`late/tryAcquire ${round}`)
        yield* freeze
        const error = yield* Effect.flip(lock.tryAcquire(request))
        assert.strictEqual(error.reason, "Timeout", "a frozen connection is a timeout")
        yield* breakOff
        assert.notStrictEqual(yield* release(request), "released", "nothing was ours")
        yield* thaw
        yield* arrival
        const [mark, ...more] = yield* keysOf(request.key)
        assert.deepStrictEqual([mark?.endsWith(":dlock-void"), more], [true, []], "nothing is held, only marked")
        assert.isTrue(Option.isSome(yield* lock.tryAcquire(newRequest(request.key))), "others can have the key")
      }))
  }

  it.effect("takes no place in line after its release", () =>
    Effect.gen(function*() {
      const { bare, server } = yield* RedisServer
      const { breakOff, freeze, lock, release, thaw } = yield* setup
      const key = "late/line"
      const holder = yield* RedisLock.make({ addrs: [server.addr] })
      const held = newRequest(key)
      yield* holder.acquire(held)
      // The subscription is open from here on, so that the next acquire asks for a place at once.
      const first = newRequest(key)
      const waiting = yield* Effect.forkScoped(lock.acquire(first))
      yield* Effect.sleep("200 millis")
      yield* Fiber.interrupt(waiting)
      yield* release(first)

      const request = newRequest(key)
      yield* freeze
      const error = yield* Effect.flip(lock.acquire(request))
      assert.strictEqual(error.reason, "Timeout")
      yield* breakOff
      yield* release(request)
      yield* thaw
      yield* arrival
      assert.strictEqual(yield* Effect.promise(() => bare.zcard(`{${key}}:dlock-line`)), 0, "the line is empty")
      yield* holder.release(held)
    }))

  it.effect("takes nothing when its mark has expired, because it has expired too", () =>
    Effect.gen(function*() {
      const { breakOff, freeze, lock, release, thaw } = yield* setup
      const request = newRequest("late/expired")
      yield* freeze
      yield* Effect.flip(lock.tryAcquire(request))
      yield* breakOff
      yield* release(request)
      yield* Effect.andThen(validity, Effect.sleep("1 second"))
      assert.deepStrictEqual(yield* keysOf(request.key), [], "the mark is gone")
      yield* thaw
      yield* arrival
      assert.deepStrictEqual(yield* keysOf(request.key), [], "nothing is held")
    }))

  it.effect("takes nothing when it was released too late to need a mark", () =>
    Effect.gen(function*() {
      const { breakOff, freeze, lock, release, thaw } = yield* setup
      const request = newRequest("late/no mark")
      yield* freeze
      yield* Effect.flip(lock.tryAcquire(request))
      yield* breakOff
      yield* validity
      yield* release(request)
      assert.deepStrictEqual(yield* keysOf(request.key), [], "no mark is set that is not needed")
      yield* thaw
      yield* arrival
      assert.deepStrictEqual(yield* keysOf(request.key), [], "nothing is held")
    }))

  it.effect("of an ordinary driver that sends again by itself takes nothing either", () =>
    Effect.gen(function*() {
      const { bare, server } = yield* RedisServer
      const road = yield* relay(server)
      const driver = bare.duplicate({ host: road.host, port: road.port })
      driver.on("error", () => {})
      yield* Effect.addFinalizer(() => Effect.sync(() => driver.disconnect()))
      const lock = yield* persist(RedisLock.makeClient(driver, { commandTimeout: "300 millis" }))
      const request = newRequest("late/driver")
      yield* road.freeze
      yield* Effect.flip(lock.tryAcquire(request))
      // The driver connects again and sends what was not answered.
      yield* road.breakOff
      yield* lock.release(request).pipe(Effect.retry({ times: 20 }))
      yield* road.thaw
      yield* arrival
      assert.isNull(yield* Effect.promise(() => bare.get(request.key)), "nothing is held")
    }))

  it.effect("of a driver that sent it again, and had its answer, takes nothing after the release", () =>
    Effect.gen(function*() {
      const { bare, server } = yield* RedisServer
      const road = yield* relay(server)
      const driver = bare.duplicate({ host: road.host, port: road.port })
      driver.on("error", () => {})
      yield* Effect.addFinalizer(() => Effect.sync(() => driver.disconnect()))
      const lock = yield* RedisLock.makeClient(driver)
      const request = newRequest("late/driver granted")
      yield* road.freeze
      const asking = yield* Effect.forkScoped(lock.tryAcquire(request), { startImmediately: true })
      yield* arrival
      yield* road.breakOff
      assert.isTrue(Option.isSome(yield* Fiber.join(asking)), "granted over the new connection")
      assert.strictEqual(yield* lock.release(request), "released")
      yield* road.thaw
      yield* arrival
      assert.isNull(yield* Effect.promise(() => bare.get(request.key)), "nothing is held")
    }))

  it.effect("leaves no mark when every request was answered", () =>
    Effect.gen(function*() {
      const { lock, release } = yield* setup
      const request = newRequest("late/ordinary")
      const exit = yield* Effect.exit(lock.acquire(request))
      assert.isTrue(Exit.isSuccess(exit))
      yield* release(request)
      assert.deepStrictEqual(yield* keysOf(request.key), [])
    }))
})
