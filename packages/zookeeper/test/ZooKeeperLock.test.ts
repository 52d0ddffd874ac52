import type { LockBackendError } from "@dlock/core"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Layer, Redacted } from "effect"
import type { Scope } from "effect"
import * as Net from "node:net"

const refusalOf = (make: Effect.Effect<unknown, LockBackendError, Scope.Scope>) =>
  Effect.map(Effect.timed(Effect.flip(Effect.scoped(make))), ([duration, error]) => ({
    error,
    millis: Duration.toMillis(duration)
  }))

const secret = "open sesame"

/** Somebody who takes every connection and never says a word. */
const silentServer = Effect.acquireRelease(
  Effect.callback<{ readonly addr: string, readonly close: () => void }>((resume) => {
    const sockets = new Set<Net.Socket>()
    const server = Net.createServer((socket) => sockets.add(socket.on("error", () => {})))
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      const close = () => {
        for (const socket of sockets) socket.destroy()
        server.close()
      }
      resume(Effect.succeed({ addr: `127.0.0.1:${port}`, close }))
    })
  }),
  ({ close }) => Effect.sync(close)
)

/** A port that nobody listens on. */
const deadServer = Effect.map(Effect.scoped(silentServer), ({ addr }) => addr)

describe("the options", () => {
  it.effect.each<[string, ZooKeeperLock.Options]>([
    ["no servers", { servers: [] }],
    ["a server that is none", { servers: ["localhost:2181", "a b"] }],
    ["a server with a path", { servers: ["localhost:2181/locks"] }],
    ["a list in one text", { servers: ["a:2181,b:2181"] }],
    ["a relative prefix", { prefix: "locks" }],
    ["a username alone", { username: "app" }],
    ["a password alone", { password: Redacted.make(secret) }],
    ["a username with a colon", { username: "a:b", password: Redacted.make(secret) }],
    ["a session that never ends", { sessionTimeout: "Infinity" }],
    ["a session that is over at once", { sessionTimeout: 0 }]
  ])("%s is refused before anything is sent", ([, options]) =>
    Effect.gen(function*() {
      const { error } = yield* refusalOf(ZooKeeperLock.make(options))
      assert.strictEqual(error.reason, "Options")
      assert.notInclude(JSON.stringify(error) + error.message, secret)
    }))

  it.effect("TLS is refused: the driver has none", () =>
    Effect.gen(function*() {
      const { error } = yield* refusalOf(ZooKeeperLock.make({ tls: true }))
      assert.strictEqual(error.reason, "Unsupported")
      assert.include(error.message, "TLS")
    }))

  it.effect("a client of something else is refused", () =>
    Effect.gen(function*() {
      const client = { getSessionTimeout: () => 0, getSessionId: () => Buffer.alloc(8) }
      const { error } = yield* refusalOf(ZooKeeperLock.makeClient(client))
      assert.strictEqual(error.reason, "Options")
    }))

  it.effect("come from the configuration", () =>
    Effect.gen(function*() {
      const provider = ConfigProvider.fromEnvRecord({ DLOCK_ZOOKEEPER_PREFIX: "locks" })
      const error = yield* Effect.flip(Effect.scoped(
        Layer.build(ZooKeeperLock.layerConfig()).pipe(
          Effect.provideService(ConfigProvider.ConfigProvider, provider)
        )
      ))
      assert.strictEqual(error._tag, "LockBackendError")
      assert.include(error.message, "\"locks\"")
    }))
})

describe("without a server", () => {
  it.live("building fails within the command timeout, and says whom it could not reach", () =>
    Effect.gen(function*() {
      const servers = [yield* deadServer]
      const { error, millis } = yield* refusalOf(
        ZooKeeperLock.make({ servers, commandTimeout: 300, username: "app", password: Redacted.make(secret) })
      )
      assert.strictEqual(error.reason, "Unreachable")
      assert.strictEqual(error.operation, "connect")
      assert.include(error.message, servers.join())
      assert.notInclude(JSON.stringify(error) + error.message, secret)
      assert.isAtLeast(millis, 299)
      assert.isBelow(millis, 1500, "closing a client that never was connected takes little")
    }))

  it.live("a server that takes the connection and never answers does not hang it", () =>
    Effect.gen(function*() {
      const { addr } = yield* silentServer
      const { error, millis } = yield* refusalOf(ZooKeeperLock.make({ servers: [addr], commandTimeout: 300 }))
      assert.strictEqual(error.reason, "Unreachable")
      assert.isBelow(millis, 1500)
    }))
})
