/**
 * What is particular to Redis Cluster.
 */
import { Lock, LockLost } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Option } from "effect"
import { redis, redisCluster } from "../harness/RedisServer.ts"
import { attempt, connect, connectCluster, millis } from "./client.ts"

const awkward = ["plain", "{tag}rest", "a{b", "a}b", "{}x", "}{", "{{x}}", "}", "ä{ö}ü", "x".repeat(500)]

const lockOn = (addrs: ReadonlyArray<string>) =>
  Effect.map(Layer.build(RedisLock.layer({ mode: "cluster", addrs })), Context.get(Lock))

const slotOf = (port: number, key: string) =>
  Effect.flatMap(connect(port), (bare) => Effect.promise(() => bare.cluster("KEYSLOT", key)))

describe("redis cluster", () => {
  it.live("keeps everything of a lock in one slot, whatever the key", () =>
    Effect.gen(function*() {
      const { addrs } = yield* redisCluster()
      const options = { mode: "cluster", addrs } as const
      const one = yield* RedisLock.make(options)
      const other = yield* RedisLock.make({ ...options, keyPrefix: "" })
      for (const key of awkward) {
        const [held, next] = [attempt(key), attempt(key)]
        yield* one.acquire(held)
        const waiting = yield* Effect.forkScoped(other.acquire(next))
        yield* Effect.sleep("50 millis")
        assert.isTrue(yield* one.release(held), key)
        yield* Fiber.join(waiting)
        assert.isTrue(yield* other.release(next), key)
      }
    }))

  it.live("wakes who waits on another node than the key's, through any node", () =>
    Effect.gen(function*() {
      const { addrs } = yield* redisCluster()
      const locks = yield* Effect.forEach(Array.from({ length: 4 }), () => RedisLock.make({ mode: "cluster", addrs }))
      for (const n of [0, 1, 2, 3, 4, 5]) {
        const held = attempt(`wake/${n}`)
        yield* (locks[n % 4] ?? assert.fail()).acquire(held)
        const waiting = yield* Effect.forkScoped((locks[(n + 1) % 4] ?? assert.fail()).acquire(attempt(held.key)))
        yield* Effect.sleep("150 millis")
        yield* (locks[n % 4] ?? assert.fail()).release(held)
        const [, time] = yield* millis(Fiber.join(waiting))
        assert.isBelow(time, 150, "a message came; a look would have been later")
      }
    }))

  it.live("a wrong mode is a clear error", () =>
    Effect.gen(function*() {
      const { addrs } = yield* redisCluster()
      const server = yield* redis()
      const asSingle = yield* Effect.flip(RedisLock.make({ addrs: addrs.slice(0, 1) }))
      assert.strictEqual(asSingle.reason, "Unsupported")
      assert.include(asSingle.message, `"cluster"`)
      const asCluster = yield* Effect.flip(RedisLock.make({ mode: "cluster", addrs: [server.addr] }))
      assert.strictEqual(asCluster.reason, "Unsupported", asCluster.message)
    }))

  it.live("a slot that moves takes its locks along, held and waited for", () =>
    Effect.gen(function*() {
      const { addrs, nodes } = yield* redisCluster()
      const bare = yield* connectCluster(nodes)
      const lock = yield* lockOn(addrs)
      const other = yield* lockOn(addrs)
      const key = "moving"
      const slot = yield* slotOf(nodes[0]?.port ?? 0, key)
      const drivers = yield* Effect.forEach(nodes, ({ port }) => connect(port))
      const ids = yield* Effect.promise(() => Promise.all(drivers.map((driver) => driver.cluster("MYID"))))
      const from = slot < 5461 ? 0 : slot < 10922 ? 1 : 2
      const to = (from + 1) % 3
      const [source, target] = [drivers[from], drivers[to]]
      const { host, port } = nodes[to] ?? assert.fail()
      const [sourceId, targetId] = [String(ids[from]), String(ids[to])]
      if (source === undefined || target === undefined) return assert.fail()

      const held = yield* Deferred.make<void>()
      const holding = yield* Effect.forkScoped(lock.withLock(
        key,
        Effect.andThen(Deferred.succeed(held, undefined), Effect.sleep("4 seconds")),
        { ttl: "1500 millis" }
      ))
      yield* Deferred.await(held)
      const waiting = yield* Effect.forkScoped(other.withLock(key, Effect.succeed("served")))
      yield* Effect.sleep("300 millis")

      yield* Effect.promise(async () => {
        await target.cluster("SETSLOT", slot, "IMPORTING", sourceId)
        await source.cluster("SETSLOT", slot, "MIGRATING", targetId)
      })
      // One key after the other, slowly: for longer than the ttl the slot is half here, half there.
      for (;;) {
        const keys = yield* Effect.promise(() => source.cluster("GETKEYSINSLOT", slot, 1))
        const [first] = keys
        if (first === undefined) break
        yield* Effect.promise(() => source.migrate(host, port, String(first), 0, 5000))
        yield* Effect.sleep("700 millis")
      }
      yield* Effect.promise(async () => {
        await target.cluster("SETSLOT", slot, "NODE", targetId)
        await source.cluster("SETSLOT", slot, "NODE", targetId)
      })
      yield* Fiber.join(holding)
      assert.strictEqual(yield* Fiber.join(waiting), "served")
      assert.strictEqual(yield* Effect.promise(() => bare.exists(key)), 0)
    }))

  it.live(
    "a master that dies: what is lost is reported as lost, tokens grow, and the locks work again",
    () =>
      Effect.gen(function*() {
        const { addrs, nodes } = yield* redisCluster({ replicas: 1 })
        const lock = yield* lockOn(addrs)
        const key = "failover"
        const slot = yield* slotOf(nodes[0]?.port ?? 0, key)
        const master = nodes[slot < 5461 ? 0 : slot < 10922 ? 1 : 2] ?? assert.fail()
        const held = yield* Deferred.make<bigint>()
        const holding = yield* Effect.forkScoped(Effect.exit(lock.withLock(
          key,
          (lease) => Effect.andThen(Deferred.succeed(held, lease.fencingToken), Effect.never),
          { ttl: "3 seconds" }
        )))
        const token = yield* Deferred.await(held)
        yield* master.kill
        // The lease may live on in the replica, or not have reached it; with ttl and time-out of a node near each other it
        // may also run out. In each case it ends by its time at the latest.
        const ended = yield* Effect.timeoutOption(Fiber.join(holding), "6 seconds")
        if (Option.isSome(ended)) {
          const error = Exit.isFailure(ended.value)
            ? Option.getOrUndefined(Cause.findErrorOption(ended.value.cause))
            : undefined
          assert.instanceOf(error, LockLost)
        } else yield* Fiber.interrupt(holding)
        const next = yield* lock.withLock(key, (lease) => Effect.succeed(lease.fencingToken)).pipe(
          Effect.retry({ times: 20 })
        )
        assert.isTrue(next > token, "tokens grow over a fail-over")
        yield* master.start
      }),
    60_000
  )

  it.live("a node that is away fails its keys only, in time, and comes back by itself", () =>
    Effect.gen(function*() {
      const { addrs, nodes } = yield* redisCluster()
      const backend = yield* RedisLock.make({ mode: "cluster", addrs, commandTimeout: "1 second" })
      const [first] = nodes
      const keys = Array.from({ length: 30 }, (_, i) => `away/${i}`)
      yield* (first ?? assert.fail()).kill
      const [results, time] = yield* millis(Effect.forEach(keys, (key) => {
        const request = attempt(key)
        return Effect.flatMap(
          Effect.exit(backend.tryAcquire(request)),
          (exit) => Effect.as(Effect.exit(backend.release(request)), Exit.isSuccess(exit))
        )
      }, { concurrency: "unbounded" }))
      assert.isBelow(time, 2500, "within the command timeout, twice")
      assert.isTrue(results.includes(false), "some keys were on the dead node")
      yield* (first ?? assert.fail()).start
      yield* Effect.forEach(
        keys,
        (key) => Effect.retry(Effect.suspend(() => backend.tryAcquire(attempt(key))), { times: 20 }),
        { concurrency: "unbounded" }
      )
    }), 60_000)
})
