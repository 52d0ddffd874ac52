import { LockBackendError } from "@dlock/core"
import { Options } from "@dlock/core/backend"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Redacted, Result } from "effect"
import { TestClock } from "effect/testing"
import { inspect } from "node:util"
import { environment } from "../support/config.ts"

const declaration = Options.declare("own", {
  addrs: Options.addresses({ port: 1234, description: "The servers.", default: ["localhost"] }),
  endpoints: Options.addresses({ port: 2379, schemes: ["http", "https"], description: "URLs." }),
  mode: Options.oneOf(["one", "two"], { description: "How.", default: "one" }),
  username: Options.text({ description: "The user." }),
  password: Options.secret({ description: "Its password." }),
  tls: Options.tls({ description: "Encrypted connections." }),
  db: Options.integer({ minimum: 0, maximum: 15, key: "dbnumber", description: "Which one.", default: 0 }),
  eager: Options.flag({ description: "At once.", default: false }),
  commandTimeout: Options.duration({ description: "The longest wait.", default: "5 seconds" }),
  pause: Options.duration({ description: "Between two.", zero: true, infinite: true, maximum: "1 hour" }),
  fencing: Options.custom({
    key: "fencing_table",
    description: "The table.",
    written: (table) => ({ table }),
    read: (input) =>
      input === "uuid" || (typeof input === "object" && input !== null && "table" in input)
        ? Result.succeed(JSON.stringify(input))
        : Result.fail("expected \"uuid\" or a table")
  })
})

const problem = (options: unknown) =>
  Effect.map(Effect.flip(declaration.parse(options)), (error) => {
    assert.instanceOf(error, LockBackendError)
    assert.deepInclude(error, { backend: "own", operation: "connect", reason: "Options" })
    return error.detail
  })

const tls = (variables: Record<string, string>) =>
  Effect.map(
    Effect.flatMap(declaration.config.parse(environment(variables)), declaration.parse),
    ({ tls }) => tls !== undefined
  )

describe("options given by code", () => {
  it.effect("have defaults, and nothing where there is none", () =>
    Effect.gen(function*() {
      const settings = yield* declaration.parse({ username: undefined })
      assert.deepStrictEqual(settings, {
        addrs: [{ host: "localhost", port: 1234 }],
        endpoints: undefined,
        mode: "one",
        username: undefined,
        password: undefined,
        tls: undefined,
        db: 0,
        eager: false,
        commandTimeout: 5000,
        pause: undefined,
        fencing: undefined
      })
      const millis: number = settings.commandTimeout
      const pause: number | undefined = settings.pause
      assert.deepStrictEqual([millis, pause], [5000, undefined], "and the types say so")
    }))

  for (
    const [text, expected] of [
      ["db", { host: "db", port: 1234 }],
      ["db:1", { host: "db", port: 1 }],
      ["db.example.org:65535", { host: "db.example.org", port: 65_535 }],
      ["[::1]", { host: "::1", port: 1234 }],
      ["[fe80::1%eth0]:80", { host: "fe80::1%eth0", port: 80 }]
    ] as const
  ) {
    it.effect(`read the address ${text}`, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual((yield* declaration.parse({ addrs: text })).addrs, [expected])
        assert.deepStrictEqual((yield* declaration.parse({ addrs: [text, "other"] })).addrs[0], expected)
      }))
  }

  it.effect("read several addresses in one text", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual((yield* declaration.parse({ addrs: "a:1, b" })).addrs, [
        { host: "a", port: 1 },
        { host: "b", port: 1234 }
      ])
    }))

  it.effect("read schemes where there may be some", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(
        (yield* declaration.parse({ endpoints: ["https://a:1/", "http://[::1]", "b"] })).endpoints,
        [
          { host: "a", port: 1, scheme: "https" },
          { host: "::1", port: 2379, scheme: "http" },
          { host: "b", port: 2379 }
        ]
      )
    }))

  for (
    const [options, expected] of [
      [{ addrs: ["127.0.0.1:99999"] }, "addrs: the port of \"127.0.0.1:99999\" is not from 1 to 65535"],
      [{ addrs: "a:0" }, "addrs: the port of \"a:0\" is not from 1 to 65535"],
      [{ addrs: "a:b" }, "addrs: \"a:b\" is no address; expected host, host:port or [ipv6]:port"],
      [{ addrs: "::1" }, "addrs: \"::1\" is no address; expected host, host:port or [ipv6]:port"],
      [{ addrs: "a,,b" }, "addrs: \"\" is no address; expected host, host:port or [ipv6]:port"],
      [
        { addrs: ["redis://me:hunter2@one:1"] },
        "addrs: \"redis://<redacted>@one:1\" is no address; expected host, host:port or [ipv6]:port"
      ],
      [{ addrs: [] }, "addrs: expected at least one address"],
      [{ addrs: [1] }, "addrs: expected a list of addresses, got [1]"],
      [{ addrs: { host: "a" } }, "addrs: expected a list of addresses, got an object"],
      [{ mode: "three" }, "mode: expected one of \"one\", \"two\", got \"three\""],
      [{ username: 5 }, "username: expected a text, got 5"],
      [{ password: 5 }, "password: expected a text, a Redacted text, or an effect that gives one"],
      [{ tls: "yes" }, "tls: expected true, false, or an object of ca, cert, key, passphrase, serverName"],
      [{ tls: { cert: "a.pem" } }, "tls: cert and key need each other"],
      [{ tls: { servername: "a" } }, "tls: unknown name \"servername\", the nearest known one is \"serverName\""],
      [{ tls: { ca: 5 } }, "tls: ca: expected PEM, or the path of a file"],
      [{ tls: { passphrase: "hunter2" } }, "tls: passphrase is for key, and there is none"],
      [{ db: 16 }, "db: expected a whole number from 0 to 15, got 16"],
      [{ db: "1" }, "db: expected a whole number from 0 to 15, got \"1\""],
      [{ db: 0.5 }, "db: expected a whole number from 0 to 15, got 0.5"],
      [{ eager: "yes" }, "eager: expected true or false, got \"yes\""],
      [{ fencing: 3 }, "fencing: expected \"uuid\" or a table"],
      [{ addr: "x" }, "unknown option \"addr\", the nearest known one is \"addrs\""],
      [{ __proto__: null, constructor: 1 }, "unknown option \"constructor\""],
      [null, "expected an object of options, got null"],
      ["localhost:1", "expected an object of options, got \"localhost:1\""],
      [["localhost:1"], "expected an object of options, got [\"localhost:1\"]"],
      [
        { db: -1, mode: "x" },
        "mode: expected one of \"one\", \"two\", got \"x\"; db: expected a whole number from 0 to 15, got -1"
      ]
    ] as const
  ) {
    it.effect(`that are wrong are told in one line: ${expected}`, () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* problem(options), expected)
      }))
  }

  it.effect("take durations as Effect and people write them", () =>
    Effect.gen(function*() {
      for (const input of [1500, "1500 millis", "1.5s", Duration.millis(1500), 1_500_000_000n] as const) {
        assert.strictEqual((yield* declaration.parse({ commandTimeout: input })).commandTimeout, 1500, String(input))
      }
      assert.strictEqual((yield* declaration.parse({ pause: 0 })).pause, 0)
      assert.strictEqual((yield* declaration.parse({ pause: "Infinity" })).pause, Number.POSITIVE_INFINITY)
    }))

  it.effect("take no other duration, and nothing dies of one", () =>
    Effect.gen(function*() {
      for (
        const input of [0, -5, Number.NaN, Number.POSITIVE_INFINITY, "nonsense", "5", "-5 seconds", {}, null, true]
      ) {
        const detail = yield* problem({ commandTimeout: input })
        assert.match(detail ?? "", /^commandTimeout: expected a duration such as .*, longer than zero, got /)
      }
      assert.match((yield* problem({ pause: "61 minutes" })) ?? "", /at most 1h/)
    }))

  it.effect("hold secrets that are shown nowhere, and read at each connect", () =>
    Effect.gen(function*() {
      let token = 0
      const rotating = Effect.sync(() => Redacted.make(`token-${++token}`))
      for (const password of ["hunter2", Redacted.make("hunter2"), rotating]) {
        const settings = yield* declaration.parse({ password })
        for (const shown of [JSON.stringify(settings), inspect(settings, { depth: 20, showHidden: true })]) {
          assert.notInclude(shown, "hunter2")
        }
        assert.isDefined(settings.password)
        const first = settings.password && Redacted.value(yield* settings.password.get)
        const second = settings.password && Redacted.value(yield* settings.password.get)
        assert.deepStrictEqual(
          [first, second],
          password === rotating ? ["token-1", "token-2"] : ["hunter2", "hunter2"]
        )
        assert.strictEqual(
          settings.password?.hide(`AUTH ${first} ${second} failed`),
          "AUTH <redacted> <redacted> failed"
        )
      }
    }))

  it.effect("hold certificates and keys that are shown nowhere", () =>
    Effect.gen(function*() {
      const settings = yield* declaration.parse({ tls: { cert: "hunter2", key: "hunter2", passphrase: "hunter2" } })
      for (const shown of [JSON.stringify(settings), inspect(settings, { depth: 20, showHidden: true })]) {
        assert.notInclude(shown, "hunter2")
      }
    }))

  it.effect("whose secret cannot be had say why, and do not die", () =>
    Effect.gen(function*() {
      for (
        const password of [Effect.fail(new Error("the vault is closed")), Effect.die(new Error("the vault is closed"))]
      ) {
        const { password: secret } = yield* declaration.parse({ password })
        assert.strictEqual(secret && (yield* Effect.flip(secret.get)), "getting it failed (the vault is closed)")
      }
      const { password: interrupted } = yield* declaration.parse({ password: Effect.interrupt })
      assert.strictEqual(interrupted && (yield* Effect.flip(interrupted.get)), "getting it was interrupted")
      const { password: silent } = yield* declaration.parse({ password: Effect.never })
      const asked = yield* Effect.forkChild(Effect.flip(silent?.get ?? Effect.die("it is there")))
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(yield* Fiber.join(asked), "getting it took more than 30 seconds")
      const { password: secret } = yield* declaration.parse({ password: Effect.succeed(5) })
      assert.strictEqual(secret && (yield* Effect.flip(secret.get)), "it is no text")
    }))
})

describe("options given by the configuration", () => {
  it.effect("are those of code", () =>
    Effect.gen(function*() {
      const options = yield* declaration.config.parse(environment({
        DLOCK_OWN_ADDRS: "a:1,b",
        DLOCK_OWN_DBNUMBER: "3",
        DLOCK_OWN_PAUSE: "0s",
        DLOCK_OWN_FENCING_TABLE: "fences",
        DLOCK_OWN_TLS_CA: "/ca.pem",
        DLOCK_OWN_TLS_SERVER_NAME: "db"
      }))
      const { tls, ...others } = options
      assert.deepStrictEqual(others, {
        addrs: ["a:1", "b"],
        db: 3,
        pause: Duration.zero,
        fencing: { table: "fences" }
      })
      assert.deepInclude(tls, { ca: "/ca.pem", serverName: "db" })
      const settings = yield* declaration.parse(options)
      assert.deepStrictEqual([settings.db, settings.pause, settings.fencing], [3, 0, "{\"table\":\"fences\"}"])
      assert.isDefined(settings.tls)
    }))

  it.effect("switch TLS off whatever else is written, and on by certificates alone", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* declaration.config.parse(environment({ DLOCK_OWN_TLS: "yes" })), { tls: true })
      assert.isTrue(yield* tls({ DLOCK_OWN_TLS: "yes" }))
      assert.isTrue(yield* tls({ DLOCK_OWN_TLS: "yes", DLOCK_OWN_TLS_CA: "/ca.pem" }))
      assert.isFalse(yield* tls({ DLOCK_OWN_TLS: "no", DLOCK_OWN_TLS_CA: "/ca.pem" }))
      assert.isTrue(yield* tls({ DLOCK_OWN_TLS_CERT: "/a.pem", DLOCK_OWN_TLS_KEY: "/a.key" }))
    }))

  it.effect("are checked as those of code are, under their own names", () =>
    Effect.gen(function*() {
      const { message } = yield* Effect.flip(declaration.config.parse(environment({
        DLOCK_OWN_ADDRS: "a:99999",
        DLOCK_OWN_TLS: "perhaps",
        DLOCK_OWN_PAUSE: "2h",
        DLOCK_OWN_DBNUMBER: "16"
      })))
      for (
        const line of [
          "the port of \"a:99999\" is not from 1 to 65535",
          "DLOCK_OWN_ADDRS",
          "DLOCK_OWN_TLS",
          "DLOCK_OWN_PAUSE",
          "DLOCK_OWN_DBNUMBER",
          "got \"perhaps\""
        ]
      ) assert.include(message, line)
      const certificate = yield* Effect.flip(declaration.config.parse(environment({ DLOCK_OWN_TLS_CERT: "hunter2" })))
      assert.include(certificate.message, "cert and key need each other")
      assert.include(certificate.message, "DLOCK_OWN_TLS_CERT")
    }))
})
