/**
 * What is particular to a master that sentinels watch.
 */
import { Lock, LockLost } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Option, Schedule } from "effect"
import { Redis } from "ioredis"
import { proxy } from "../harness/Proxy.ts"
import { redis, redisSentinel } from "../harness/RedisServer.ts"
import type { Server } from "../harness/Server.ts"
import { closing, connect, millis, newRequest, until } from "./client.ts"

const lockOn = (options: RedisLock.Options) => Effect.map(Layer.build(RedisLock.layer(options)), Context.get(Lock))

const setup = Effect.gen(function*() {
  const { addrs, masterName, servers } = yield* redisSentinel()
  const [master] = servers
  return { options: { mode: "sentinel", addrs, masterName } as const, servers, master: master ?? assert.fail() }
})

/** Holds a key until the lease ends; tells the token. */
const hold = (lock: Lock["Service"], key: string) =>
  Effect.gen(function*() {
    const token = yield* Deferred.make<bigint>()
    const fiber = yield* Effect.forkScoped(Effect.exit(
      lock.withLock(key, ({ fencingToken }) => Effect.andThen(Deferred.succeed(token, fencingToken), Effect.never), {
        ttl: "3 seconds"
      })
    ))
    return { fiber, token: yield* Deferred.await(token) }
  })

const failure = (options: RedisLock.Options) =>
  millis(Effect.flip(RedisLock.make({ ...options, commandTimeout: "2 seconds" })))

const assertLostOrHeld = (fiber: Fiber.Fiber<Exit.Exit<unknown, unknown>>) =>
  Effect.gen(function*() {
    const ended = yield* Effect.timeoutOption(Fiber.join(fiber), "6 seconds")
    if (Option.isNone(ended)) return yield* Fiber.interrupt(fiber)
    const error = Exit.isFailure(ended.value)
      ? Option.getOrUndefined(Cause.findErrorOption(ended.value.cause))
      : undefined
    assert.instanceOf(error, LockLost, "what is lost is reported as lost")
  })

/** The first of the sentinels. */
const askSentinel = Effect.fnUntraced(function*(
  { addrs, masterName }: { readonly addrs: ReadonlyArray<string>, readonly masterName: string }
) {
  const [port] = addrs.map((addr) => Number(addr.split(":")[1]))
  const sentinel = yield* connect(port ?? 0)
  return {
    failOver: Effect.promise(() => sentinel.call("SENTINEL", "FAILOVER", masterName)),
    masterPort: Effect.promise(async () => {
      const address = await sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName)
      return Array.isArray(address) ? Number(address[1]) : 0
    })
  }
})

const failOver = (name: string, harm: (master: Server) => Effect.Effect<void>) =>
  it.live(name, () =>
    Effect.gen(function*() {
      const { master, options } = yield* setup
      const lock = yield* lockOn(options)
      const { fiber, token } = yield* hold(lock, "failover")
      yield* harm(master)
      yield* assertLostOrHeld(fiber)
      const next = yield* lock.withLock("failover", ({ fencingToken }) => Effect.succeed(fencingToken)).pipe(
        Effect.retry({ times: 20 })
      )
      assert.isTrue(next > token, "tokens grow over a fail-over")
      yield* master.resume
    }), 60_000)

describe("redis with sentinels", () => {
  failOver("a master that dies", (master) => master.kill)
  failOver("a master that hangs", (master) => master.pause)

  it.live("a master that is replaced while it lives is left", () =>
    Effect.gen(function*() {
      const { master, options } = yield* setup
      const backend = yield* RedisLock.make(options)
      yield* backend.acquire(newRequest("before"))
      const { failOver, masterPort } = yield* askSentinel(options)
      yield* failOver
      yield* until(Effect.map(masterPort, (port) => port !== master.port))
      yield* Effect.sleep("1 second")
      const request = newRequest("after")
      yield* Effect.retry(backend.acquire(request), { times: 20 })
      const bare = yield* connect(yield* masterPort)
      assert.strictEqual(yield* Effect.promise(() => bare.get("after")), request.owner, "the new master has the lock")
    }), 60_000)

  it.live("a driver of the caller leaves its master, too, as soon as a sentinel tells of another", () =>
    Effect.gen(function*() {
      // A sentinel is a server that publishes, as far as this goes.
      const [server, sentinel] = [yield* redis(), yield* redis()]
      const [driver, bare, teller] = [
        yield* connect(server.port),
        yield* connect(server.port),
        yield* connect(sentinel.port)
      ]
      Object.assign(driver.options, { name: "mine", sentinels: [{ host: sentinel.host, port: sentinel.port }] })
      yield* RedisLock.makeClient(driver)
      yield* until(
        Effect.promise(async () => String(await teller.pubsub("CHANNELS", "+switch-master")) === "+switch-master")
      )
      const id = yield* Effect.promise(() => driver.client("ID"))
      yield* Effect.promise(() => teller.publish("+switch-master", "other 127.0.0.1 1 127.0.0.1 2"))
      yield* Effect.promise(() => bare.ping())
      assert.strictEqual(yield* Effect.promise(() => driver.client("ID")), id, "of another set of servers")
      yield* Effect.promise(() => teller.publish("+switch-master", "mine 127.0.0.1 1 127.0.0.1 2"))
      yield* until(Effect.promise(async () => (await driver.client("ID")) !== id))
    }))

  it.live("a driver of the caller that is told of another master while it connects goes on", () =>
    Effect.gen(function*() {
      const { masterName, sentinels: [sentinel = assert.fail()], servers: [master = assert.fail()] } =
        yield* redisSentinel()
      const road = yield* proxy(sentinel)
      const [bare, told] = [yield* connect(master.port), yield* redis()]
      const teller = yield* connect(told.port)
      const driver = yield* closing(() =>
        new Redis({
          name: masterName,
          sentinels: [{ host: road.host, port: road.port }],
          // Not to learn of the others: it is to connect by the road alone.
          updateSentinels: false,
          retryStrategy: () => 20,
          sentinelRetryStrategy: () => 20
        })
      )
      yield* until(Effect.sync(() => driver.status === "ready"))
      // A sentinel is a server that publishes, as far as this goes.
      Object.assign(driver.options, { sentinels: [{ host: told.host, port: told.port }] })
      const backend = yield* RedisLock.makeClient(driver)
      yield* until(
        Effect.promise(async () => String(await teller.pubsub("CHANNELS", "+switch-master")) === "+switch-master")
      )
      yield* road.blackhole()
      yield* Effect.promise(() => bare.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
      yield* until(Effect.sync(() => driver.status === "connecting"))
      yield* Effect.promise(() => teller.publish("+switch-master", `${masterName} 127.0.0.1 1 127.0.0.1 2`))
      yield* Effect.promise(() => teller.ping())
      yield* road.pass
      yield* until(Effect.sync(() => driver.status === "ready"))
      yield* backend.ping.pipe(Effect.retry({ times: 50, schedule: Schedule.spaced("100 millis") }))
    }))

  it.live(
    "what was released before a fail-over is not held after it, and what was held is",
    () =>
      Effect.gen(function*() {
        const { options, servers } = yield* setup
        const backend = yield* RedisLock.make(options)
        const requests = Array.from({ length: 150 }, (_, i) => newRequest(`back/${i}`, 20_000))
        yield* Effect.forEach(requests, backend.acquire, { concurrency: "unbounded" })
        const { failOver, masterPort } = yield* askSentinel(options)
        const before = yield* masterPort
        yield* failOver
        for (const request of requests.slice(0, 100)) {
          yield* Effect.retry(Effect.suspend(() => backend.release(request)), { times: 5 })
          yield* Effect.sleep("15 millis")
        }
        yield* until(Effect.map(masterPort, (port) => port !== before))
        yield* backend.ping.pipe(Effect.retry({ times: 50, schedule: Schedule.spaced("100 millis") }))
        yield* Effect.sleep("1 second")
        const bare = yield* connect(yield* masterPort)
        const left = yield* Effect.promise(() => bare.mget(requests.map(({ key }) => key)))
        assert.deepStrictEqual(left.slice(0, 100).filter((owner) => owner !== null), [], "nothing released is held")
        assert.strictEqual(left.slice(100).filter((owner) => owner !== null).length, 50, "what is held is there")
        assert.strictEqual(servers.length, 3)
      }),
    60_000
  )

  it.live("one of the sentinels is enough", () =>
    Effect.gen(function*() {
      const { options } = yield* setup
      const backend = yield* RedisLock.make({ ...options, addrs: ["127.0.0.1:1", ...options.addrs.slice(2)] })
      yield* backend.acquire(newRequest("one"))
    }))

  it.live("wrong names and addresses are clear errors, in time", () =>
    Effect.gen(function*() {
      const { master, options } = yield* setup
      const [unknown] = yield* failure({ ...options, masterName: "nobody" })
      assert.strictEqual(unknown.reason, "Unreachable", unknown.message)
      const [away, time] = yield* failure({ ...options, addrs: ["127.0.0.1:1"] })
      assert.strictEqual(away.reason, "Unreachable", away.message)
      assert.include(away.message, "127.0.0.1:1")
      assert.isBelow(time, 10_000)
      const [noSentinel] = yield* failure({ ...options, addrs: [master.addr] })
      assert.include(["Unreachable", "Unsupported"], noSentinel.reason, noSentinel.message)
      const [single] = yield* failure({ addrs: options.addrs.slice(0, 1) })
      assert.strictEqual(single.reason, "Unsupported", single.message)
      assert.include(single.message, `"sentinel"`)
    }))
})
