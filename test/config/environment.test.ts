import type { Lock } from "@dlock/core"
import { LockConfig, LockUnavailable } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Config, ConfigProvider, Duration, Effect, Layer, Redacted, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { parseDuration } from "../../packages/core/src/internal/config/value.ts"
import { environment, layer } from "../../packages/core/test/support/config.ts"
import { etcd, mysql, redis, redlock, zookeeper } from "./backends.ts"

const fails = <A>(config: Config.Config<A>, variables: Record<string, string>) =>
  Effect.map(Effect.flip(config.parse(environment(variables))), ({ message }) => message)

describe("the environment", () => {
  it.effect("gives each backend its options", () =>
    Effect.gen(function*() {
      const env = environment({
        DLOCK_REDIS_ENABLED: "true",
        DLOCK_REDIS_ADDRS: "one:6379, two:6380",
        DLOCK_REDIS_MODE: "sentinel",
        DLOCK_REDIS_MASTER_NAME: "main",
        DLOCK_REDIS_PASSWORD: " a secret ",
        DLOCK_REDIS_DB: "3",
        DLOCK_REDIS_TLS: "on",
        DLOCK_REDIS_COMMAND_TIMEOUT: "1m30s",
        DLOCK_ETCD_ENDPOINTS: "https://one:2379",
        DLOCK_ETCD_DIAL_TIMEOUT: "500ms",
        DLOCK_MYSQL_HOST: "db",
        DLOCK_MYSQL_PORT: "3307",
        DLOCK_MYSQL_DBNAME: "locks",
        DLOCK_MYSQL_FENCING_TABLE: "fences",
        DLOCK_ZOOKEEPER_SERVERS: "one:2181,two:2181",
        DLOCK_ZOOKEEPER_SESSION_TIMEOUT: "10 seconds",
        DLOCK_REDLOCK_NODES: "a:1,b:2,c:3"
      })
      const { password, ...options } = yield* redis.config.parse(env)
      assert.deepStrictEqual(options, {
        addrs: ["one:6379", "two:6380"],
        mode: "sentinel",
        masterName: "main",
        db: 3,
        tls: true,
        commandTimeout: Duration.millis(90_000)
      })
      assert.isTrue(Redacted.isRedacted(password), "a password is redacted")
      assert.strictEqual(password && Redacted.value(password), " a secret ", "a password is taken as it is")
      assert.deepStrictEqual(yield* etcd.config.parse(env), {
        endpoints: ["https://one:2379"],
        dialTimeout: Duration.millis(500)
      })
      assert.deepStrictEqual(yield* mysql.config.parse(env), {
        host: "db",
        port: 3307,
        database: "locks",
        fencing: { table: "fences" }
      })
      assert.deepStrictEqual(yield* zookeeper.config.parse(env), {
        servers: ["one:2181", "two:2181"],
        sessionTimeout: Duration.millis(10_000)
      })
      assert.deepStrictEqual(yield* redlock.config.parse(env), { nodes: ["a:1", "b:2", "c:3"] })
    }))

  it.effect("leaves out what is not written, and what is empty", () =>
    Effect.gen(function*() {
      const env = environment({ DLOCK_REDIS_ADDRS: "", DLOCK_REDIS_PASSWORD: "", DLOCK_REDIS_DB: "" })
      assert.deepStrictEqual(yield* redis.config.parse(env), {}, "the backend's own defaults are to count")
      assert.isFalse(yield* LockConfig.enabled("redis").parse(env), "nothing is enabled by itself")
    }))

  it.effect("is the provider of the context, also under a prefix", () =>
    Effect.gen(function*() {
      const env = environment({ APP_DLOCK_REDIS_DB: "4" })
      assert.deepStrictEqual(yield* Config.nested(redis.config, "APP").parse(env), { db: 4 })
    }))

  it.effect("enables a backend that is not in the table", () =>
    Effect.gen(function*() {
      const env = environment({ DLOCK_MY_OWN_ENABLED: "yes" })
      assert.isTrue(yield* LockConfig.enabled("my-own").parse(env))
    }))

  it.effect("tells everything that is wrong with a section together", () =>
    Effect.gen(function*() {
      const message = yield* fails(redis.config, {
        DLOCK_REDIS_DB: "three",
        DLOCK_REDIS_TLS: "maybe",
        DLOCK_REDIS_MODE: "double",
        DLOCK_REDIS_COMMAND_TIMEOUT: "5",
        DLOCK_REDIS_ADDRS: "one:1,,two:2"
      })
      for (const variable of ["DB", "TLS", "MODE", "COMMAND_TIMEOUT", "ADDRS"]) {
        assert.include(message, `DLOCK_REDIS_${variable}"`, "every variable is named")
      }
      assert.include(message, "expected one of single, cluster, sentinel, got \"double\"")
      assert.include(message, "expected a whole number of at least 0, got \"three\"")
      assert.include(message, "expected true, false, 1, 0, yes, no, on or off, got \"maybe\"")
      assert.include(message, "expected a duration such as 10s, 1m30s, 500ms, 1.5h or \"10 seconds\"")
      assert.include(message, "got \"one:1,,two:2\"")
    }))

  it.effect("does not show the credentials in an address", () =>
    Effect.gen(function*() {
      const message = yield* fails(redis.config, { DLOCK_REDIS_ADDRS: "redis://me:hunter2@one:1, , two:2" })
      assert.notInclude(message, "hunter2")
      assert.include(message, "one:1", "the rest of it is shown")
    }))

  it.effect("limits numbers to what can be meant", () =>
    Effect.gen(function*() {
      for (const port of ["0", "65536", "-1", "1.5", "1e3", "0x10", "99999999999999999999"]) {
        const message = yield* fails(mysql.config, { DLOCK_MYSQL_PORT: port })
        assert.include(message, "expected a whole number from 1 to 65535", port)
      }
      assert.deepStrictEqual(yield* mysql.config.parse(environment({ DLOCK_MYSQL_PORT: " 3306 " })), { port: 3306 })
    }))

  it.effect("reads every spelling of a boolean", () =>
    Effect.gen(function*() {
      for (
        const [spelling, value] of [[" true ", "false\n"], ["1", "0"], ["yes", "no"], ["on", "off"], ["TRUE", "Off"]]
          .flatMap(([yes = "", no = ""]) => [[yes, true], [no, false]] as const)
      ) {
        const env = environment({ DLOCK_REDIS_ENABLED: spelling })
        assert.strictEqual(yield* LockConfig.enabled("redis").parse(env), value, spelling)
      }
    }))
})

describe("durations", () => {
  it("are read as they are usually written", () => {
    for (
      const [written, millis] of [
        ["10s", 10_000],
        ["1m30s", 90_000],
        ["500ms", 500],
        ["1.5h", 5_400_000],
        ["0.125s", 125],
        ["1h0m0.5s", 3_600_500],
        ["1500us", 1.5],
        ["2µs", 0.002],
        ["10 seconds", 10_000],
        ["1 minute", 60_000],
        ["1.5 hours", 5_400_000],
        [" 3s ", 3000],
        ["Infinity", Number.POSITIVE_INFINITY]
      ] as const
    ) {
      const duration = parseDuration(written)
      assert.isTrue(duration._tag === "Some" && Duration.toMillis(duration.value) === millis, written)
    }
  })

  it("are not guessed", () => {
    for (
      const written of [
        "10",
        "s",
        "10 s",
        "10s ago",
        "1m 30s",
        "-5s",
        "1e3s",
        ".5s",
        "5.s",
        "10sec",
        "1".repeat(100) + "s"
      ]
    ) {
      assert.strictEqual(parseDuration(written)._tag, "None", written)
    }
  })

  it.effect("are limited to what can be meant", () =>
    Effect.gen(function*() {
      for (const ttl of ["0s", "Infinity", "-Infinity", "-5 seconds", "999999999h"]) {
        assert.include(yield* fails(LockConfig.lock, { DLOCK_TTL: ttl }), "DLOCK_TTL", ttl)
      }
      assert.deepStrictEqual(
        yield* LockConfig.lock.parse(environment({ DLOCK_TIMEOUT: "0s", DLOCK_MAX_HOLD: "Infinity" })),
        { timeout: Duration.zero, maxHold: Duration.infinity }
      )
    }))
})

describe("the defaults of every lock", () => {
  it.effect("are options as a call gives them", () =>
    Effect.gen(function*() {
      const env = environment({ DLOCK_TTL: "10s", DLOCK_TIMEOUT: "2s", DLOCK_MAX_HOLD: "1h" })
      assert.deepStrictEqual(yield* LockConfig.lock.parse(env), {
        ttl: Duration.millis(10_000),
        timeout: Duration.millis(2000),
        maxHold: Duration.millis(3_600_000)
      })
    }))

  for (
    const [variables, expected] of [
      [{ DLOCK_RETRY_TIMES: "2", DLOCK_RETRY_DELAY: "2s" }, [0, 2000, 4000]],
      [{ DLOCK_RETRY_TIMES: "3" }, [0, 100, 200, 300]],
      [{ DLOCK_RETRY_TIMES: "0" }, [0]],
      [{ DLOCK_RETRY_DELAY: "1s" }, [0, 1000, 2000, 3000, 4000, 5000, 6000]]
    ] as const
  ) {
    it.effect(`retry as told by ${JSON.stringify(variables)}`, () =>
      Effect.gen(function*() {
        const { retry } = yield* LockConfig.lock.parse(environment(variables))
        assert.isDefined(retry)
        const attempts: Array<number> = []
        yield* Effect.gen(function*() {
          attempts.push(yield* Clock.currentTimeMillis)
          return yield* new LockUnavailable({ key: "k", reason: "held" })
        }).pipe(Effect.retry(retry || Schedule.forever), Effect.forkChild({ startImmediately: true }))
        yield* TestClock.adjust("6500 millis")
        assert.deepStrictEqual(attempts, [...expected])
      }))
  }

  it.effect("stand over those that the program has set", () =>
    Effect.gen(function*() {
      const given = Layer.succeed(LockConfig.LockDefaults, { ttl: 1, maxHold: 2 })
      const read = Effect.service(LockConfig.LockDefaults)
      const configured = LockConfig.layerDefaults.pipe(
        Layer.provide(ConfigProvider.layer(environment({ DLOCK_TTL: "7s" })))
      )
      const expected: Lock.Options = { ttl: Duration.millis(7000), maxHold: 2 }
      assert.deepStrictEqual(yield* Effect.provide(read, Layer.provide(configured, given)), expected)
      const byFile = layer({ files: { "config.yaml": "ttl: 7s" } })
      assert.deepStrictEqual(yield* Effect.provide(read, Layer.provide(byFile, given)), expected)
    }))

  it.effect("are read anew in each part of a program", () =>
    Effect.gen(function*() {
      const seen: Array<Lock.Options> = []
      const part = (ttl: string) =>
        Layer.effectDiscard(Effect.map(LockConfig.LockDefaults, (defaults) => seen.push(defaults))).pipe(
          Layer.provide(LockConfig.layerDefaults),
          Layer.provide(ConfigProvider.layer(environment({ DLOCK_TTL: ttl })))
        )
      yield* Effect.scoped(Layer.build(Layer.merge(part("1s"), part("2s"))))
      assert.sameDeepMembers(seen, [{ ttl: Duration.millis(1000) }, { ttl: Duration.millis(2000) }])
    }))

  it.effect("are installed by layer and by layerDefaults", () =>
    Effect.gen(function*() {
      const expected: Lock.Options = { ttl: Duration.millis(7000) }
      const read = Effect.service(LockConfig.LockDefaults)
      assert.deepStrictEqual(yield* read, {}, "nothing is set by itself")
      assert.deepStrictEqual(
        yield* Effect.provide(read, layer({ files: { "config.yaml": "ttl: 7s" } })),
        expected
      )
      assert.deepStrictEqual(
        yield* Effect.provide(
          read,
          Layer.provide(LockConfig.layerDefaults, ConfigProvider.layer(environment({ DLOCK_TTL: "7s" })))
        ),
        expected
      )
    }))
})
