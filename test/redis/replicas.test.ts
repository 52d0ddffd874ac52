/**
 * Locks that wait until replicas have them.
 */
import { Lock } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Option } from "effect"
import { redisCluster, redisSentinel } from "../harness/RedisServer.ts"
import { attempt, connect, millis } from "./client.ts"

describe("waitReplicas", () => {
  it.live("gives out a lock that replicas have, and no other", () =>
    Effect.gen(function*() {
      const { addrs, masterName, servers } = yield* redisSentinel()
      const [master, ...replicas] = servers
      const options = { mode: "sentinel", addrs, masterName } as const
      const lockWith = (count: number) =>
        Effect.map(
          Layer.build(RedisLock.layer({ ...options, waitReplicas: { count, timeout: "300 millis" } })),
          Context.get(Lock)
        )
      const two = yield* lockWith(2)
      const three = yield* lockWith(3)
      const bare = yield* Effect.forEach(replicas, ({ port }) => connect(port))

      const values = yield* two.withLock("replicated", () =>
        Effect.promise(() => Promise.all(bare.map((driver) => driver.get("replicated")))))
      assert.isTrue(
        values.every((value) =>
          value !== null
        ),
        "every replica has the lock when it is given out"
      )

      const error = yield* Effect.flip(three.withLock("too few", Effect.void))
      assert.strictEqual(error._tag, "LockBackendError")
      assert.include(error.message, "2 of 3")
      const atMaster = yield* connect(master?.port ?? 0)
      assert.strictEqual(yield* Effect.promise(() => atMaster.exists("too few")), 0, "it was given back")

      for (const replica of replicas) yield* replica.pause
      const [exits, time] = yield* millis(Effect.forEach(
        Array.from({ length: 50 }, (_, i) => `stuck/${i}`),
        (key) => Effect.exit(two.withLock(key, Effect.void)),
        { concurrency: "unbounded" }
      ))
      assert.isTrue(exits.every(Exit.isFailure), "no lock without replicas")
      assert.isBelow(time, 2000, "who come while one waits wait together, not one after the other")
      for (const replica of replicas) yield* replica.resume
      yield* Effect.retry(two.withLock("replicated", Effect.void), { times: 20 })
    }), 60_000)

  it.live("works in a cluster, and after its master was replaced", () =>
    Effect.gen(function*() {
      const { addrs, nodes } = yield* redisCluster({ replicas: 1 })
      const backend = yield* RedisLock.make({ mode: "cluster", addrs, waitReplicas: { count: 1 } })
      const use = (key: string) =>
        Effect.gen(function*() {
          const request = attempt(key)
          const grant = yield* backend.tryAcquire(request)
          yield* backend.release(request)
          return Option.isSome(grant)
        })
      for (let i = 0; i < 20; i++) assert.isTrue(yield* use(`cluster/${i}`))
      yield* (nodes[0] ?? assert.fail()).kill
      yield* Effect.sleep("5 seconds")
      yield* (nodes[0] ?? assert.fail()).start
      yield* Effect.sleep("2 seconds")
      for (let i = 0; i < 20; i++) assert.isTrue(yield* Effect.retry(use(`cluster/${i}`), { times: 5 }))
    }), 60_000)
})
