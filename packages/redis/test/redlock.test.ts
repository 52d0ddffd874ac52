import { Redlock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Redacted } from "effect"
import * as Net from "node:net"

const errorOf = (options: Redlock.Options) => Effect.scoped(Effect.flip(Redlock.make(options)))

/** A port of 127.0.0.1 on which nothing listens. */
const closedPort = Effect.callback<number>((resume) => {
  const server = Net.createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0)))
  })
})

describe("invalid options are refused before anything is sent", () => {
  const cases: ReadonlyArray<readonly [name: string, options: Redlock.Options, problem: RegExp]> = [
    ["no nodes", {}, /at least one address/],
    ["an empty list of nodes", { nodes: [] }, /at least one address/],
    ["a node twice", { nodes: ["a:1", "b:1", "a:1"] }, /a:1 .*twice/],
    ["a node twice, once with the default port", { nodes: ["a", "A:6379"] }, /a:6379 .*twice/],
    ["no address", { nodes: ["a:1", "redis://b"] }, /"redis:\/\/b" is no address/],
    ["a node timeout of zero", { nodes: ["a"], nodeTimeout: 0 }, /nodeTimeout/],
    ["a node timeout without end", { nodes: ["a"], nodeTimeout: "Infinity" }, /nodeTimeout/],
    ["a command timeout of zero", { nodes: ["a"], commandTimeout: 0 }, /commandTimeout/]
  ]
  for (const [name, options, problem] of cases) {
    it.live(name, () =>
      Effect.gen(function*() {
        const error = yield* errorOf(options)
        assert.strictEqual(error.reason, "Options")
        assert.strictEqual(error.backend, "redlock")
        assert.match(error.message, problem)
      }))
  }

  it.live("no clients", () =>
    Effect.gen(function*() {
      const error = yield* Effect.scoped(Effect.flip(Redlock.makeClients([])))
      assert.strictEqual(error.reason, "Options")
    }))

  it.live("nodes that the configuration does not name", () =>
    Effect.gen(function*() {
      const build = Layer.build(Redlock.layerConfig())
      const error = yield* Effect.scoped(Effect.flip(build)).pipe(
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({})))
      )
      assert.match(error.message, /at least one address/)
    }))
})

it.live("servers that were never started are told by their addresses, without the password", () =>
  Effect.gen(function*() {
    const ports = [yield* closedPort, yield* closedPort, yield* closedPort]
    const error = yield* errorOf({
      nodes: ports.map((port) => `127.0.0.1:${port}`),
      password: Redacted.make("geheim"),
      commandTimeout: "500 millis"
    })
    assert.strictEqual(error.reason, "Unreachable")
    assert.match(error.message, /0 of 3 servers, 2 are needed/)
    for (const port of ports) assert.include(error.message, `127.0.0.1:${port}`)
    assert.notInclude(JSON.stringify(error) + String(error.cause), "geheim")
  }))
