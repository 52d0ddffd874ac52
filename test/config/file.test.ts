import { LockConfig } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Layer, Redacted } from "effect"
import { nearest } from "../../packages/core/src/internal/config/names.ts"
import * as support from "../../packages/core/test/support/config.ts"
import { backends, etcd, mysql, redis, zookeeper } from "./backends.ts"

const { files } = support

/** Over the given sources only, with all backends. */
const layer = (sources: support.Sources) => support.layer({ backends, ...sources })
const problems = (sources: support.Sources) => support.problems({ backends, ...sources })

const found = (sources: support.Sources) =>
  Effect.provide(Effect.map(redis.config, ({ keyPrefix }) => keyPrefix), layer(sources))

describe("the file", () => {
  const yaml = `
ttl: 20s
redis:
  enabled: true
  addrs: [ "one:6379", two:6380 ]
  password: "007"
  db: 2
etcd:
  enabled: no
  endpoints:
    - one:2379
    - two:2379
  dial_timeout: "5s"
mysql:
  username: app
  dbname: locks
  port: 3307
zookeeper:
  servers: one:2181,two:2181
  session_timeout: 10 seconds
  prefix: /app
`

  it.effect("gives each backend its options", () =>
    Effect.gen(function*() {
      const { password, ...options } = yield* redis.config
      assert.deepStrictEqual(options, { addrs: ["one:6379", "two:6380"], db: 2 })
      assert.strictEqual(password && Redacted.value(password), "007")
      assert.isTrue(yield* LockConfig.enabled("redis"))
      assert.isFalse(yield* LockConfig.enabled("etcd"))
      assert.deepStrictEqual(yield* etcd.config, {
        endpoints: ["one:2379", "two:2379"],
        dialTimeout: Duration.millis(5000)
      })
      assert.deepStrictEqual(yield* mysql.config, { username: "app", database: "locks", port: 3307 })
      assert.deepStrictEqual(yield* zookeeper.config, {
        servers: ["one:2181", "two:2181"],
        sessionTimeout: Duration.millis(10_000),
        prefix: "/app"
      })
      assert.deepStrictEqual(yield* LockConfig.lock, { ttl: Duration.millis(20_000) })
    }).pipe(Effect.provide(layer({ files: { "config.yaml": yaml } }))))

  it.effect("stands below the environment, key by key", () =>
    Effect.gen(function*() {
      const { password, ...options } = yield* redis.config
      assert.deepStrictEqual(options, { addrs: ["three:1"], db: 2, keyPrefix: "app:" })
      assert.isDefined(password, "an empty variable overrides nothing")
      assert.isFalse(yield* LockConfig.enabled("redis"))
    }).pipe(Effect.provide(layer({
      files: { "config.yaml": yaml },
      env: {
        DLOCK_REDIS_ENABLED: "false",
        DLOCK_REDIS_ADDRS: "three:1",
        DLOCK_REDIS_PASSWORD: "",
        DLOCK_REDIS_KEY_PREFIX: "app:"
      }
    }))))

  it.effect("may be wrong where the environment overrides it", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* redis.config, { db: 5 })
    }).pipe(Effect.provide(layer({ files: { "config.yaml": "redis: {db: x}" }, env: { DLOCK_REDIS_DB: "5" } }))))

  it.effect("is the first that is named or exists", () =>
    Effect.gen(function*() {
      const files = Object.fromEntries(
        ["given.yaml", "named.yaml", "config.yaml", "config/config.yaml"].map((path) => [
          path,
          `redis: {key_prefix: "${path}"}`
        ])
      )
      const env = { DLOCK_CONFIG: "named.yaml" }
      assert.strictEqual(yield* found({ files, env, file: "given.yaml" }), "given.yaml")
      assert.strictEqual(yield* found({ files, env }), "named.yaml")
      assert.strictEqual(yield* found({ files }), "config.yaml")
      const { ["config.yaml"]: _, ...others } = files
      assert.strictEqual(yield* found({ files: others }), "config/config.yaml")
      assert.strictEqual(
        yield* found({ files: { ...others, "config.yaml": { fails: "BadResource" } } }),
        "config/config.yaml"
      )
      assert.strictEqual(yield* found({}), undefined, "no file is fine")
    }))

  it.effect("must exist when it is given", () =>
    Effect.gen(function*() {
      const files = { "config.yaml": "ttl: 5s" }
      assert.deepStrictEqual(yield* problems({ files, file: "gone.yaml" }), ["gone.yaml: there is no such file"])
      assert.deepStrictEqual(yield* problems({ files, env: { DLOCK_CONFIG: "gone.yaml" } }), [
        "gone.yaml (DLOCK_CONFIG): there is no such file"
      ])
      assert.deepStrictEqual(yield* problems({ files: { dir: { fails: "BadResource" } }, file: "dir" }), [
        "dir: this is not a file"
      ])
    }))

  it.effect("must be readable when it exists", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* problems({ files: { "config.yaml": { fails: "PermissionDenied" } } }), [
        "config.yaml: reading this file is not permitted"
      ])
    }))

  it.effect("may be empty, and so may anything in it", () =>
    Effect.gen(function*() {
      for (const text of ["", "# nothing", "---\n", "redis:\n", "redis: {db: ~, password: ''}\nttl:\n"]) {
        assert.deepStrictEqual(
          yield* Effect.provide(redis.config, layer({ files: { "config.yaml": text } })),
          {},
          text
        )
      }
    }))

  it.effect("has everything that is wrong with it told together, and the environment's too", () =>
    Effect.gen(function*() {
      const text = `
redis:
  adrs: [one]
  db: -1
  password: 12345
  username: true
  addrs: [one:1, 2, [three]]
  "key\\nprefix": x
rediss: {enabled: true}
zookeeper: hunter2
mysql: [1]
RETRY-Times: 5
ttl: 30
etcd:
  tls: 2
`
      assert.deepStrictEqual(
        yield* problems({ files: { "app.yaml": text }, file: "app.yaml", env: { DLOCK_MYSQL_PORT: "x" } }),
        [
          "app.yaml: redis.adrs: unknown key, the nearest known name is \"addrs\"",
          "app.yaml: redis.\"key\\nprefix\": unknown key, the nearest known name is \"key_prefix\"",
          "app.yaml: rediss: unknown key, the nearest known name is \"redis\"",
          "app.yaml: zookeeper: expected a mapping, got a string",
          "app.yaml: mysql: expected a mapping, got a list",
          "app.yaml: RETRY-Times: unknown key, the nearest known name is \"retry_times\"",
          "app.yaml: ttl: expected a duration such as 10s, 1m30s, 500ms, 1.5h or \"10 seconds\", longer than zero, got 30",
          "app.yaml: redis.addrs: expected addresses as a list or separated by commas, none of them empty or with white " +
          "space in it, got [\"one:1\", 2, a list]",
          "app.yaml: redis.username: expected text, in quotes where YAML would read a number or a boolean, got true",
          "app.yaml: redis.password: expected text, in quotes where YAML would read a number or a boolean",
          "app.yaml: redis.db: expected a whole number of at least 0, got -1",
          "app.yaml: etcd.tls: expected true, false, 1, 0, yes, no, on or off, got 2",
          "DLOCK_MYSQL_PORT: expected a whole number from 1 to 65535, got \"x\""
        ]
      )
    }))

  it.effect("that is not YAML is told by the line", () =>
    Effect.gen(function*() {
      for (
        const [text, problem] of [
          ["redis:\n  db: 1\n  db: 2\n", "line 3: Duplicate key 'db'"],
          ["redis:\n\tdb: 1\n", "line 2: Tabs cannot be used for YAML indentation"],
          ["redis:\n  db: 1\n  addrs: [a, b\nttl: 5s\n", "line 3: Expected ','"],
          ["redis:\n  db: 1\n  password: \"a\n", "line 3: Unterminated quoted YAML scalar"],
          [
            "ttl: 5s\nredis:\n  password: *hunter2\n",
            "line 3: unknown YAML alias; a text that begins with * must be in quotes"
          ],
          ["ttl: 5s\nredis: " + "[".repeat(50_000), "line 2: this is not YAML, or it is nested too deeply"],
          ["just text", ": expected a mapping, got a string"],
          ["- a\n- b", ": expected a mapping, got a list"]
        ] as const
      ) {
        assert.deepStrictEqual(
          yield* problems({ files: { "config.yaml": text } }),
          [`config.yaml${problem.startsWith(":") ? problem : `, ${problem}`}`],
          text.slice(0, 80)
        )
      }
    }))

  it.effect("is a typed error also where the environment cannot be read", () =>
    Effect.gen(function*() {
      for (const variable of ["DLOCK_CONFIG", "DLOCK_REDIS_DB"]) {
        const provider = ConfigProvider.make((path) =>
          path[0] === variable
            ? Effect.fail(new ConfigProvider.SourceError({ message: "the vault is closed" }))
            : Effect.undefined
        )
        const error = yield* Layer.build(LockConfig.layer({ backends })).pipe(
          Effect.scoped,
          Effect.provide([ConfigProvider.layer(provider), files({})]),
          Effect.flip
        )
        assert.strictEqual(error._tag, "LockConfigError")
        assert.include(error.message, "the vault is closed")
      }
    }))

  it.effect("is told by a message for people", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(
        Effect.scoped(Layer.build(layer({ files: { "config.yaml": "redis: {db: x}\ntl: 5s" } })))
      )
      assert.strictEqual(error._tag, "LockConfigError")
      assert.strictEqual(
        error.message,
        "The configuration of the locks is wrong:\n" +
          "  config.yaml: tl: unknown key, the nearest known name is \"ttl\"\n" +
          "  config.yaml: redis.db: expected a whole number of at least 0, got \"x\""
      )
    }))
})

it("the nearest name takes the fewest changes, whatever the case, and few", () => {
  const names = ["db", "ttl", "addrs", "key_prefix"]
  for (
    const [name, expected] of [
      ["TTL", "ttl"],
      ["keyPrefix", "key_prefix"],
      ["key-prefix", "key_prefix"],
      ["adress", "addrs"],
      ["server", undefined],
      ["x".repeat(1_000_000), undefined]
    ] as const
  ) assert.strictEqual(nearest(name, names), expected)
})
