/**
 * The Redis service of Effect, over node-redis.
 */
import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { RedisLock } from "@dlock/redis"
import { NodeRedis } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { capabilities, single, Target } from "./support.ts"

const backend = Layer.effect(
  LockBackend,
  Effect.gen(function*() {
    const { options } = yield* Target
    const service = yield* Layer.build(Layer.fresh(NodeRedis.layer({ url: `redis://${options.addrs}` })))
    return yield* Effect.provide(RedisLock.makeRedis(), service)
  })
)

LockTest.suiteWith("redis over node-redis", backend, { ...capabilities, resends: true }, single())
