/**
 * The Redis service of Effect, over node-redis.
 */
import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { RedisLock } from "@dlock/redis"
import { NodeRedis } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { redis } from "../harness/RedisServer.ts"
import { connect, newRequest } from "./client.ts"
import { capabilities, single, Target } from "./support.ts"

const backend = Layer.effect(
  LockBackend,
  Effect.gen(function*() {
    const { options } = yield* Target
    const service = yield* Layer.build(Layer.fresh(NodeRedis.layer({ url: `redis://${options.addrs}` })))
    return yield* Effect.provide(RedisLock.makeRedis(), service)
  })
)

it.live("a user who may not use channels is told so by a waiter, and the server is not asked all the time", () =>
  Effect.gen(function*() {
    const server = yield* redis({})
    const bare = yield* connect(server.port)
    yield* Effect.promise(() => bare.acl("SETUSER", "mute", "on", ">secret", "~*", "resetchannels", "+@all"))
    const service = yield* Layer.build(NodeRedis.layer({ url: `redis://mute:secret@${server.addr}` }))
    const backend = yield* Effect.provide(RedisLock.makeRedis(), service)
    yield* backend.acquire(newRequest("k"))
    const error = yield* Effect.flip(backend.acquire(newRequest("k")))
    assert.strictEqual(error.reason, "Unauthorized")
    yield* Effect.sleep("1 second")
    const stats = yield* Effect.promise(() => bare.info("commandstats"))
    const refused = Number(/cmdstat_subscribe:.*rejected_calls=(\d+)/.exec(stats)?.[1])
    assert.isTrue(refused >= 1 && refused <= 8, `${refused} subscriptions in a second`)
  }))

LockTest.suiteWith("redis over node-redis", backend, { ...capabilities, resends: true }, single())
