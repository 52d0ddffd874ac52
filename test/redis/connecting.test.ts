/**
 * What can go wrong when the layer is built, and that no password is told.
 */
import { Lock } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Redacted } from "effect"
import { Redis } from "ioredis"
import * as Util from "node:util"
import { redis } from "../harness/RedisServer.ts"
import { connect, millis, newRequest } from "./client.ts"

const secret = "hunter2-and-more"

const build = (options: RedisLock.Options) => Effect.scoped(Layer.build(RedisLock.layer(options)))

const failure = (options: RedisLock.Options) => Effect.flip(build(options))

/** Everything that anybody could print of a value. */
const everything = (u: unknown): string =>
  [String(u), JSON.stringify(u), Util.inspect(u, { depth: 20, showHidden: true }), u instanceof Error ? u.stack : ""]
    .join("\\n")

const assertSilent = (u: unknown) => assert.notInclude(everything(u), secret, "no password in any output")

describe("connecting", () => {
  it.live("to a server that quotes what it does not understand tells no password either", () =>
    Effect.gen(function*() {
      const server = yield* redis({
        args: ["--rename-command", "HELLO", "", "--rename-command", "AUTH", ""]
      })
      const error = yield* failure({ addrs: [server.addr], password: Redacted.make(secret) })
      assertSilent(error)
    }))

  it.live("to a database that does not exist is refused", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const error = yield* failure({ addrs: [server.addr], db: 99 })
      assert.strictEqual(error.reason, "Rejected", error.message)
      const backend = yield* RedisLock.make({ addrs: [server.addr], db: 3 })
      const bare = yield* connect(server.port)
      yield* backend.acquire(newRequest("third"))
      yield* Effect.promise(() => bare.select(3))
      assert.strictEqual(yield* Effect.promise(() => bare.exists("third")), 1)
    }))

  it.live("to a server that evicts keys warns", () =>
    Effect.gen(function*() {
      for (
        const [policy, maxmemory, warns] of [
          ["allkeys-lru", "100mb", true],
          ["volatile-ttl", "100mb", true],
          ["noeviction", "100mb", false],
          ["allkeys-lru", "0", false]
        ] as const
      ) {
        const server = yield* redis({ args: ["--maxmemory-policy", policy, "--maxmemory", maxmemory] })
        const logs: Array<string> = []
        yield* build({ addrs: [server.addr] }).pipe(
          Effect.provide(Logger.layer([Logger.make(({ logLevel, message }) => logs.push(`${logLevel} ${message}`))]))
        )
        assert.strictEqual(logs.some((line) => line.startsWith("Warn") && line.includes(policy)), warns, policy)
      }
    }))

  it.live("over a driver of the caller uses it, leaves it open, and takes its listeners back", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const events = ["ready", "close", "end", "error", "message"]
      const listeners = () => events.map((event) => bare.listenerCount(event))
      const before = listeners()
      yield* Effect.scoped(Effect.gen(function*() {
        const lock = yield* Layer.build(RedisLock.layerClient(bare))
        const waiting = Effect.provideContext(
          Effect.gen(function*() {
            const { withLock } = yield* Lock
            yield* Effect.all([withLock("mine", Effect.sleep("50 millis")), withLock("mine", Effect.void)], {
              concurrency: 2
            })
          }),
          lock
        )
        yield* waiting
      }))
      assert.strictEqual(bare.status, "ready", "it is not ours to close")
      assert.deepStrictEqual(listeners(), before)
      assert.strictEqual(yield* Effect.promise(() => bare.ping()), "PONG")
    }))

  it.live("over a driver that was not opened yet opens it; over one that was closed fails", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const lazy = new Redis({ host: server.host, port: server.port, lazyConnect: true })
      yield* Effect.addFinalizer(() => Effect.sync(() => lazy.disconnect()))
      const backend = yield* RedisLock.makeClient(lazy)
      yield* backend.acquire(newRequest("lazy"))
      const closed = new Redis({ host: server.host, port: server.port, lazyConnect: true })
      closed.disconnect()
      yield* Effect.sleep("50 millis")
      const error = yield* Effect.flip(RedisLock.makeClient(closed, { commandTimeout: "500 millis" }))
      assert.strictEqual(error.reason, "Unreachable")
    }))

  it.live("over a driver that is closed in the middle fails at once, without waiting", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const backend = yield* RedisLock.makeClient(bare)
      bare.disconnect()
      yield* Effect.sleep("100 millis")
      const [error, time] = yield* millis(Effect.flip(backend.acquire(newRequest("closed"))))
      assert.strictEqual(error.reason, "Unreachable", error.message)
      assert.isBelow(time, 2500)
    }))
})
