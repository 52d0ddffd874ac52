/**
 * Drivers of the caller, whatever their settings make of replies, keys and order, and servers that lack commands.
 */
import { RedisLock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option } from "effect"
import type { RedisOptions } from "ioredis"
import { Redis } from "ioredis"
import { Redis as Redis5 } from "ioredis5"
import * as Net from "node:net"
import { redis } from "../harness/RedisServer.ts"
import { closing, connect, millis, newRequest } from "./client.ts"

const settings: ReadonlyArray<readonly [name: string, options: Omit<RedisOptions, "replyMapping">]> = [
  ["stringNumbers", { stringNumbers: true }],
  ["RESP 2", { protocol: 2 }],
  ["RESP 2 and stringNumbers", { protocol: 2, stringNumbers: true }],
  ["replyMapping", { protocol: 3 }],
  ["keyPrefix", { keyPrefix: "app:" }],
  ["enableAutoPipelining", { enableAutoPipelining: true }],
  ["enableOfflineQueue", { enableOfflineQueue: false, lazyConnect: true }],
  ["enableReadyCheck", { enableReadyCheck: false }],
  ["maxRetriesPerRequest", { maxRetriesPerRequest: null }],
  ["commandTimeout", { commandTimeout: 5000 }],
  ["socketTimeout", { socketTimeout: 5000 }],
  ["showFriendlyErrorStack", { showFriendlyErrorStack: true }],
  ["db", { db: 3 }],
  ["readOnly", { readOnly: true }],
  ["retryStrategy", { retryStrategy: null }],
  ["connectionName", { connectionName: "mine" }]
]

/** An address that leads to one server, and then to another. */
const switchable = Effect.fnUntraced(function*(first: number) {
  let target = first
  const sockets = new Set<Net.Socket>()
  const listener = Net.createServer((client) => {
    const server = Net.connect({ host: "127.0.0.1", port: target })
    for (const socket of [client, server]) {
      sockets.add(socket)
      socket.on("error", () => {})
      socket.on("close", () => [client, server].forEach((either) => either.destroy()))
    }
    client.pipe(server).pipe(client)
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      listener.listen({ host: "127.0.0.1", port: 0 }, () => resume(Effect.void))
    }),
    () => Effect.sync(() => listener.close())
  )
  const address = listener.address()
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    lead: (port: number) => {
      target = port
      for (const socket of sockets) socket.destroy()
    }
  }
})

/** Every verb over one driver, waiting included. */
const useAll = (name: string, open: (port: number, host: string) => RedisLock.Client) =>
  Effect.gen(function*() {
    const server = yield* redis()
    const driver = yield* Effect.acquireRelease(
      Effect.sync(() => open(server.port, server.host)),
      (driver) => Effect.sync(() => driver.disconnect())
    )
    const lock = yield* RedisLock.makeClient(driver)
    const [held, next] = [{ ...newRequest(`given/${name}`), spare: 3 }, newRequest(`given/${name}`)]
    const grant = yield* lock.acquire(held)
    assert.isTrue(grant.tokens.first > 0n)
    assert.isTrue(Option.isNone(yield* lock.tryAcquire(newRequest(held.key))))
    const waiting = yield* Effect.forkScoped(lock.acquire(next))
    yield* Effect.sleep("200 millis")
    assert.isTrue(Option.isSome(yield* lock.renew(held, {})), "renew")
    const renewed = yield* lock.renew(held, { spare: 3 })
    assert.isTrue(Option.isSome(renewed) && (renewed.value.tokens?.first ?? 0n) > grant.tokens.first, "tokens")
    const { holder, waiting: line } = yield* lock.inspect(held.key)
    assert.deepStrictEqual([Option.map(holder, ({ owner }) => owner), line], [Option.some(held.owner), [
      next.owner
    ]])
    assert.strictEqual(yield* lock.release(held), "released")
    yield* Effect.timeout(Fiber.join(waiting), "10 seconds")
    assert.isTrue(yield* lock.revoke(held.key, next.owner))
  })

describe("a driver of the caller", () => {
  for (const [name, options] of settings) {
    it.live(`with ${name} works`, () => useAll(name, (port, host) => new Redis(port, host, options)))
  }

  it.live("of ioredis 5 works", () => useAll("five", (port, host) => new Redis5(port, host)))

  it.live("of ioredis 5 with stringNumbers works", () =>
    useAll("five/strings", (port, host) => new Redis5(port, host, { stringNumbers: true })))

  it.live("that cannot send commands is refused", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const monitor = yield* closing(() => new Redis({ host: server.host, port: server.port, monitor: true }))
      assert.strictEqual((yield* Effect.flip(RedisLock.makeClient(monitor))).reason, "Options")
      const driver = yield* closing(() => new Redis({ host: server.host, port: server.port, protocol: 2 }))
      yield* Effect.promise(() => driver.subscribe("something"))
      const error = yield* Effect.flip(RedisLock.makeClient(driver))
      assert.include(error.message, "subscriber mode")
    }))
})

describe("a server", () => {
  it.live("without INFO is taken as it is", () =>
    Effect.gen(function*() {
      const server = yield* redis({ args: ["--rename-command", "INFO", ""] })
      const lock = yield* RedisLock.make({ addrs: [server.addr] })
      yield* lock.acquire(newRequest("no info"))
    }))

  it.live("without INFO that is a replica is refused all the same", () =>
    Effect.gen(function*() {
      const server = yield* redis({ args: ["--rename-command", "INFO", "", "--replicaof", "127.0.0.1", "1"] })
      const error = yield* Effect.flip(RedisLock.make({ addrs: [server.addr] }))
      assert.include(error.message, "replica of 127.0.0.1:1")
    }))

  it.live("without EVAL is refused when the layer is built", () =>
    Effect.gen(function*() {
      const server = yield* redis({ args: ["--rename-command", "EVAL", ""] })
      const error = yield* Effect.flip(RedisLock.make({ addrs: [server.addr] }))
      assert.strictEqual(error.reason, "Unsupported")
      assert.include(error.message, "Lua")
    }))

  it.live("at its limit of clients says so", () =>
    Effect.gen(function*() {
      const server = yield* redis({ args: ["--maxclients", "1"] })
      const bare = yield* connect(server.port)
      yield* Effect.promise(() => bare.ping())
      const error = yield* Effect.flip(RedisLock.make({ addrs: [server.addr], commandTimeout: "1 second" }))
      assert.strictEqual(error.reason, "Unreachable")
      assert.match(error.message, /max(imum)? number of clients/)
    }))

  it.live("at its limit of clients has waiters all the same, which look now and then", () =>
    Effect.gen(function*() {
      const server = yield* redis({})
      const bare = yield* connect(server.port)
      const [holder, lock] = [
        yield* RedisLock.make({ addrs: [server.addr] }),
        yield* RedisLock.make({ addrs: [server.addr] })
      ]
      // The next connection, which is for messages, is one too many.
      yield* Effect.promise(() => bare.config("SET", "maxclients", 3))
      const [held, next] = [newRequest("full"), newRequest("full")]
      yield* holder.acquire(held)
      const waiting = yield* Effect.forkScoped(lock.acquire(next), { startImmediately: true })
      yield* Effect.sleep("2 seconds")
      assert.isUndefined(waiting.pollUnsafe(), "it waits")
      yield* holder.release(held)
      const [, time] = yield* millis(Fiber.join(waiting))
      assert.isBelow(time, 10_000, "one look, long before the ttl is over")
    }))

  it.live("that does not speak TLS is named, with the word", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const options = { addrs: [server.addr], tls: true, commandTimeout: "1 second" } as const
      const [error, time] = yield* millis(Effect.flip(RedisLock.make(options)))
      assert.include(error.message, server.addr)
      assert.include(error.message, "TLS")
      assert.isBelow(time, 10_000)
    }))

  it.live("whose channel a releaser may not use hands over to the next look", () =>
    Effect.gen(function*() {
      const server = yield* redis({})
      const bare = yield* connect(server.port)
      yield* Effect.promise(() => bare.acl("SETUSER", "mute", "on", ">secret", "~*", "resetchannels", "+@all"))
      const mute = yield* RedisLock.make({ addrs: [server.addr], username: "mute", password: "secret" })
      const lock = yield* RedisLock.make({ addrs: [server.addr] })
      const [held, next] = [newRequest("mute"), newRequest("mute")]
      yield* mute.acquire(held)
      const waiting = yield* Effect.forkScoped(lock.acquire(next))
      yield* Effect.sleep("200 millis")
      assert.strictEqual(yield* mute.release(held), "released")
      const [, time] = yield* millis(Fiber.join(waiting))
      assert.isBelow(time, 10_000, "long before the ttl is over")
    }))

  it.live("that another address leads to ends what is held before it grants anything (law 12)", () =>
    Effect.gen(function*() {
      const [one, other] = [yield* redis({}), yield* redis({})]
      const road = yield* switchable(one.port)
      const lock = yield* RedisLock.make({ addrs: [`127.0.0.1:${road.port}`] })
      const told: Array<string> = []
      const held = { ...newRequest("law 12/held"), onLost: (reason: string) => void told.push(reason) }
      yield* lock.acquire(held)
      road.lead(other.port)
      yield* lock.acquire(newRequest("law 12/new"))
      assert.deepStrictEqual(told, ["taken"], "told before the other server's grant")
    }))
})
