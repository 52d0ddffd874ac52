/**
 * What can go wrong when the layer is built, and that no password is told.
 */
import { Lock, LockBackendError } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, Redacted, References } from "effect"
import { Redis } from "ioredis"
import * as Util from "node:util"
import { proxy } from "../harness/Proxy.ts"
import { redis } from "../harness/RedisServer.ts"
import { attempt, connect, millis } from "./client.ts"

const secret = "hunter2-and-more"

const build = (options: RedisLock.Options) => Effect.scoped(Layer.build(RedisLock.layer(options)))

const failure = (options: RedisLock.Options) => Effect.flip(build(options))

/** Everything that anybody could print of a value. */
const everything = (u: unknown): string =>
  [String(u), JSON.stringify(u), Util.inspect(u, { depth: 20, showHidden: true }), u instanceof Error ? u.stack : ""]
    .join("\\n")

const assertSilent = (u: unknown) => assert.notInclude(everything(u), secret, "no password in any output")

describe("connecting", () => {
  it.live("with the right password, as the default user and as another", () =>
    Effect.gen(function*() {
      const server = yield* redis({ password: secret })
      const bare = yield* connect(server.port, secret)
      yield* Effect.promise(() => bare.acl("SETUSER", "app", "on", `>${secret}`, "~*", "&*", "+@all"))
      const password = Redacted.make(secret)
      yield* build({ addrs: [server.addr], password })
      const backend = yield* RedisLock.make({ addrs: [server.addr], username: "app", password })
      const held = attempt("app")
      yield* backend.acquire(held)
      const waiting = yield* Effect.forkScoped(backend.acquire(attempt("app")))
      yield* Effect.sleep("200 millis")
      yield* backend.release(held)
      yield* Effect.timeout(Fiber.join(waiting), "1 second")
    }))

  it.live("with a wrong password, or none, is Unauthorized, and tells it to nobody", () =>
    Effect.gen(function*() {
      const server = yield* redis({ password: "something else" })
      const wrong = { addrs: [server.addr], password: Redacted.make(secret) }
      const logs: Array<unknown> = []
      const errors = yield* Effect.all([
        failure(wrong),
        failure({ ...wrong, username: "app" }),
        failure({ addrs: [server.addr] })
      ]).pipe(
        Effect.provide(Logger.layer([Logger.make((entry) => logs.push(entry))])),
        Effect.provideService(References.MinimumLogLevel, "All")
      )
      for (const error of errors) {
        assert.instanceOf(error, LockBackendError)
        assert.strictEqual(error.reason, "Unauthorized", error.message)
        assertSilent(error)
      }
      assertSilent(logs)
    }))

  it.live("to a server that quotes what it does not understand tells no password either", () =>
    Effect.gen(function*() {
      const server = yield* redis({
        args: ["--rename-command", "HELLO", "", "--rename-command", "AUTH", ""]
      })
      const error = yield* failure({ addrs: [server.addr], password: Redacted.make(secret) })
      assertSilent(error)
    }))

  it.live("to nobody is Unreachable at once", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      yield* server.kill
      const [error, time] = yield* millis(failure({ addrs: [server.addr] }))
      assert.strictEqual(error.reason, "Unreachable")
      assert.include(error.message, "ECONNREFUSED")
      assert.isBelow(time, 1000)
      const unknown = yield* failure({ addrs: ["no-such-host.invalid"] })
      assert.strictEqual(unknown.reason, "Unreachable")
    }))

  it.live("to a server that says nothing fails within the command timeout", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      yield* server.pause
      const [error, time] = yield* millis(failure({ addrs: [server.addr], commandTimeout: "500 millis" }))
      assert.strictEqual(error.reason, "Timeout")
      assert.isBelow(time, 800)
    }))

  it.live("to a database that does not exist is refused", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const error = yield* failure({ addrs: [server.addr], db: 99 })
      assert.strictEqual(error.reason, "Rejected", error.message)
      const backend = yield* RedisLock.make({ addrs: [server.addr], db: 3 })
      const bare = yield* connect(server.port)
      yield* backend.acquire(attempt("third"))
      yield* Effect.promise(() => bare.select(3))
      assert.strictEqual(yield* Effect.promise(() => bare.exists("third")), 1)
    }))

  it.live("without TLS where the server wants none, and with TLS where it has none", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const error = yield* failure({ addrs: [server.addr], tls: true, commandTimeout: "1 second" })
      assert.include(["Unreachable", "Timeout"], error.reason, error.message)
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
      yield* backend.acquire(attempt("lazy"))
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
      const [error, time] = yield* millis(Effect.flip(backend.acquire(attempt("closed"))))
      assert.strictEqual(error.reason, "Unreachable", error.message)
      assert.isBelow(time, 200)
    }))

  it.live("leaves no connection behind when the layer closes", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const road = yield* proxy(server)
      yield* Effect.scoped(Effect.gen(function*() {
        const backend = yield* RedisLock.make({ addrs: [road.addr] })
        yield* backend.acquire(attempt("close"))
        yield* Effect.forkScoped(backend.acquire(attempt("close")))
        yield* Effect.sleep("200 millis")
        assert.strictEqual(yield* road.connections, 2, "one for commands, one for messages")
      }))
      yield* Effect.sleep("200 millis")
      assert.strictEqual(yield* road.connections, 0)
    }))
})
