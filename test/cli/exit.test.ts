import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { randomBytes } from "node:crypto"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { reserve } from "../harness/Port.ts"
import { makeFolder, removeFolder } from "../harness/Process.ts"
import { redis } from "../harness/RedisServer.ts"
import { assertFailure, dlock, dlockEnds, ended, patience, sourceEnds } from "./support.ts"

const environment = Effect.map(redis(), ({ addr }) => ({ DLOCK_REDIS_ENABLED: "true", DLOCK_REDIS_ADDRS: addr }))

const folder = Effect.acquireRelease(makeFolder("cli"), removeFolder)

/** Waits until a program stands in line for the key. */
const inLine = (env: Record<string, string>, key: string) =>
  Effect.repeat(dlockEnds(env, "inspect", "--json", key), { until: ({ stdout }) => !stdout.includes("\"waiting\":[]") })

const ping = (env: Record<string, string>, ...args: ReadonlyArray<string>) => dlockEnds(env, "ping", ...args)

describe("dlock", patience, () => {
  it.live("ends as its command does, or as a shell does that cannot run it", () =>
    Effect.gen(function*() {
      const env = yield* environment
      const file = join(yield* folder, "no-program")
      writeFileSync(file, "")
      const run = (...command: ReadonlyArray<string>) => dlockEnds(env, "run", `k${command.length}`, "--", ...command)
      assert.deepStrictEqual(yield* run("sh", "-c", "echo said >&2; exit 3"), { code: 3, stdout: "", stderr: "said\n" })
      assert.strictEqual((yield* run("sh", "-c", "kill -USR1 $$")).code, 138, "128 and the number of the signal")
      assertFailure(yield* run("dlock-no-such-program"), 127, /dlock-no-such-program: command not found/)
      assertFailure(yield* run(""), 127, /command not found/)
      assertFailure(yield* run(file), 126, /permission denied/)
    }))

  it.live("refuses a wrong command line with 64", () =>
    Effect.gen(function*() {
      const env = { DLOCK_REDIS_ENABLED: "true" }
      const refuses = (line: RegExp, ...args: ReadonlyArray<string>) =>
        Effect.map(dlockEnds(env, ...args), (end) => assertFailure(end, 64, line))
      yield* refuses(/dlock --help/)
      yield* refuses(/command/, "run", "k")
      yield* refuses(/--frob/, "run", "--frob", "k", "--", "true")
      yield* refuses(/--backend/, "ping", "--backend", "memory")
      yield* refuses(/--ttl: expected a duration such as .*, got "5x"/, "run", "--ttl", "5x", "k", "--", "true")
      yield* refuses(/--exit-busy/, "run", "--exit-busy", "256", "k", "--", "true")
      const { code, stderr, stdout } = yield* dlockEnds(env, "--help")
      assert.deepStrictEqual([code, stderr], [0, ""])
      assert.match(stdout, /inspect/)
    }))

  it.live("refuses an invalid request with 64, and its command does not run", () =>
    Effect.gen(function*() {
      const env = yield* environment
      assertFailure(yield* dlockEnds(env, "run", "--ttl", "1ms", "k", "--", "echo", "ran"), 64, /ttl must be/)
    }))

  it.live("refuses a wrong configuration with 78", () =>
    Effect.gen(function*() {
      assertFailure(yield* ping({}), 78, /no backend is enabled/)
      const two = { DLOCK_REDIS_ENABLED: "true", DLOCK_ETCD_ENABLED: "true" }
      assertFailure(yield* ping(two), 78, /more than one backend is enabled \(redis, etcd\)/)
      assertFailure(yield* ping({ DLOCK_REDIS_ADDR: "x" }, "--backend", "redis"), 78, /DLOCK_REDIS_ADDRS/)
      assertFailure(yield* ping({ DLOCK_REDIS_DB: "x" }, "--backend", "redis"), 78, /DLOCK_REDIS_DB/)
      assertFailure(yield* ping({}, "--config", "/no/such/file.yaml"), 78, /no\/such\/file/)
    }))

  it.live("tells which package is missing, with 78", () =>
    Effect.gen(function*() {
      const missing =
        "Object.assign(new Error(\"Cannot find package '@dlock/redis'\"), { code: 'ERR_MODULE_NOT_FOUND' })"
      const hook = `import { registerHooks } from "node:module"; registerHooks({ resolve: (name, context, next) => {
        if (name === "@dlock/redis") throw ${missing}; return next(name, context) } })`
      const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(hook)}` }
      for (const backend of ["redis", "redlock"]) {
        const line = new RegExp(`"${backend}" needs the package @dlock/redis: npm install @dlock/redis`)
        assertFailure(yield* sourceEnds(env, "ping", "--backend", backend), 78, line)
      }
    }))

  it.live("passes SIGINT and SIGHUP to its command, whose code is its own, and leaves the line at each of them", () =>
    Effect.gen(function*() {
      const env = yield* environment
      for (const [signal, number] of [["SIGINT", 2], ["SIGHUP", 1]] as const) {
        const trap = `trap 'echo got; exit 5' ${signal.slice(3)}; echo in; sleep 1000 & wait`
        const holder = yield* dlock(env, "run", signal, "--", "sh", "-c", trap)
        yield* holder.line("in")
        const waiting = yield* dlock(env, "run", "--timeout", "1h", signal, "--", "echo", "ran")
        yield* inLine(env, signal)
        yield* waiting.signal(signal)
        assert.deepStrictEqual(yield* ended(waiting), { code: 128 + number, stdout: "", stderr: "" })
        yield* holder.signal(signal)
        assert.deepStrictEqual(yield* ended(holder), { code: 5, stdout: "in\ngot\n", stderr: "" })
      }
    }))

  it.live("keeps the key taken for --min-hold, and does not wait for that itself", () =>
    Effect.gen(function*() {
      const env = yield* environment
      const run = (...options: ReadonlyArray<string>) => dlockEnds(env, "run", ...options, "kept", "--", "echo", "ran")
      assert.deepStrictEqual(yield* run("--min-hold", "10m"), { code: 0, stdout: "ran\n", stderr: "" })
      assertFailure(yield* run("--if-available"), 75, /another owner holds it/)
      const { stdout } = yield* dlockEnds(env, "inspect", "--json", "kept")
      assert.isAbove(JSON.parse(stdout).holder.remaining, 60_000, "for longer than the ttl")
      assertFailure(yield* run("--min-hold", "10m", "--max-hold", "1s"), 64, /minHold must not be longer than maxHold/)
    }))

  it.live("ends with 69 when the server is gone, and its command does not run", () =>
    Effect.gen(function*() {
      const env = { DLOCK_REDIS_ADDRS: `127.0.0.1:${yield* reserve}` }
      assertFailure(yield* dlockEnds(env, "ping", "--backend", "redis"), 69, /redis/)
      assertFailure(yield* dlockEnds(env, "run", "--backend", "redis", "k", "--", "echo", "ran"), 69, /redis/)
    }))

  it.live("reads a file", () =>
    Effect.gen(function*() {
      const { DLOCK_REDIS_ADDRS } = yield* environment
      const file = join(yield* folder, "dlock.yaml")
      writeFileSync(file, `redis:\n  enabled: true\n  addrs: ["${DLOCK_REDIS_ADDRS}"]\n`)
      const end = yield* dlockEnds({}, "run", "--config", file, "k", "--", "echo", "ran")
      assert.deepStrictEqual(end, { code: 0, stdout: "ran\n", stderr: "" })
    }))

  it.live("passes arguments and bytes on as they are", () =>
    Effect.gen(function*() {
      const env = yield* environment
      const args = ["a b", "$HOME", "\"", "it's", "", "--ttl", "-x", "--", "two\nlines", "*", "ü", "\\"]
      const listed = yield* dlockEnds(env, "run", "k", "--", "sh", "-c", "printf '[%s]' \"$@\"", "sh", ...args)
      assert.deepStrictEqual(listed, { code: 0, stdout: args.map((arg) => `[${arg}]`).join(""), stderr: "" })
      const bytes = randomBytes(300_000)
      const cat = yield* dlock(env, "run", "k", "--", "cat")
      yield* cat.write(bytes)
      yield* cat.endInput
      assert.strictEqual((yield* ended(cat)).code, 0)
      assert.isTrue(cat.stdout().equals(bytes), "standard input and output are the command's")
    }))
})
