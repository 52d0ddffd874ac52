import type { LockBackendError } from "@dlock/core"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Redacted } from "effect"
import type { Scope } from "effect"

const refusalOf = (make: Effect.Effect<unknown, LockBackendError, Scope.Scope>) => Effect.flip(Effect.scoped(make))

const secret = "open sesame"

describe("the options", () => {
  it.effect.each<[string, ZooKeeperLock.Options]>([
    ["two chroots", { servers: ["a:2181/app", "b:2181/other"] }],
    ["a chroot that is not a path", { servers: "a:2181/app/../x" }],
    ["a relative prefix", { prefix: "locks" }],
    ["a username alone", { username: "app" }],
    ["a password alone", { password: Redacted.make(secret) }],
    ["a username with a colon", { username: "a:b", password: Redacted.make(secret) }],
    ["a session that never ends", { sessionTimeout: "Infinity" }],
    ["a session that is over at once", { sessionTimeout: 0 }],
    ["a command timeout of zero", { commandTimeout: 0 }],
    ["rights that need credentials", { acl: "readable" }]
  ])("%s is refused before anything is sent", ([, options]) =>
    Effect.gen(function*() {
      const error = yield* refusalOf(ZooKeeperLock.make(options))
      assert.strictEqual(error.reason, "Options")
      assert.notInclude(JSON.stringify(error) + error.message, secret)
    }))

  it.effect("TLS is refused: the driver has none", () =>
    Effect.gen(function*() {
      const error = yield* refusalOf(ZooKeeperLock.make({ tls: true }))
      assert.strictEqual(error.reason, "Unsupported")
      assert.include(error.message, "TLS")
    }))

  it.effect("a client of something else is refused", () =>
    Effect.gen(function*() {
      const client = { getSessionTimeout: () => 0, getSessionId: () => Buffer.alloc(8) }
      const error = yield* refusalOf(ZooKeeperLock.makeClient(client))
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
      assert.strictEqual(error._tag, "ConfigError")
      assert.include(error.message, "DLOCK_ZOOKEEPER_PREFIX")
      assert.include(error.message, "\"locks\"")
    }))
})
