import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { assertFailure, backends, dlock, dlockEnds, ended, patience, polite, seen } from "./support.ts"

describe.each(backends)("dlock run over $name", patience, ({ place }) => {
  it.live("lets the second wait for the first, with a greater token", () =>
    Effect.gen(function*() {
      const at = yield* place
      const command = "echo \"in $DLOCK_FENCING_TOKEN $DLOCK_KEY\"; read -r word; echo \"out $word\""
      const first = yield* dlock(at.env, "run", "k", "--", "sh", "-c", command)
      const [token = ""] = (yield* first.line("in ")).split(" ")
      const second = yield* dlock(at.env, "run", "k", "--", "sh", "-c", command)
      yield* second.write("two\n")
      yield* seen(at, "k", ({ waiting }) => waiting === 1)
      assert.strictEqual(second.stdout().toString(), "", "the second does not run while the first does")
      yield* first.write("one\n")
      assert.deepStrictEqual(yield* ended(first), { code: 0, stdout: `in ${token} k\nout one\n`, stderr: "" })
      const { code, stderr, stdout } = yield* ended(second)
      assert.deepStrictEqual([code, stderr], [0, ""])
      const next = /^in (\d+) k\nout two\n$/.exec(stdout)?.[1]
      assert.isTrue(next !== undefined && BigInt(next) > BigInt(token), `${token}, then ${stdout}`)
      yield* seen(at, "k", ({ isHeld }) => !isHeld)
    }))

  it.live("does not wait for a busy key when it is told so", () =>
    Effect.gen(function*() {
      const at = yield* place
      const holder = yield* dlock(at.env, "run", "k", "--", "sh", "-c", polite)
      yield* holder.line("in ")
      const run = (...options: ReadonlyArray<string>) => dlockEnds(at.env, "run", ...options, "k", "--", "echo", "ran")
      const [available, chosen, timeout] = yield* Effect.all([
        run("--if-available"),
        run("--if-available", "--exit-busy", "9"),
        run("--timeout", "300ms")
      ], { concurrency: "unbounded" })
      assertFailure(available, 75, /another owner holds it/)
      assertFailure(chosen, 9, /another owner holds it/)
      assertFailure(timeout, 75, /Lock "k"/)
      yield* seen(at, "k", ({ isHeld, waiting }) => isHeld && waiting === 0)
    }))

  it.live("leaves the line when it is ended", () =>
    Effect.gen(function*() {
      const at = yield* place
      const holder = yield* dlock(at.env, "run", "k", "--", "sh", "-c", polite)
      yield* holder.line("in ")
      const waiting = yield* dlock(at.env, "run", "k", "--", "echo", "ran")
      yield* seen(at, "k", ({ waiting }) => waiting === 1)
      yield* waiting.signal("SIGTERM")
      assert.deepStrictEqual(
        yield* ended(waiting),
        { code: 143, stdout: "", stderr: "" },
        "as a shell tells of SIGTERM"
      )
      yield* seen(at, "k", ({ isHeld, waiting }) => isHeld && waiting === 0)
    }))

  it.live("passes SIGTERM to its command, whose code is its own", () =>
    Effect.gen(function*() {
      const at = yield* place
      const program = yield* dlock(at.env, "run", "k", "--", "sh", "-c", polite)
      const rest = yield* program.line("in ")
      yield* program.signal("SIGTERM")
      assert.deepStrictEqual(yield* ended(program), { code: 5, stdout: `in ${rest}\nterm\n`, stderr: "" })
      yield* seen(at, "k", ({ isHeld }) => !isHeld)
    }))

  it.live("ends with 137 when its command is killed, and frees the key", () =>
    Effect.gen(function*() {
      const at = yield* place
      const program = yield* dlock(at.env, "run", "--ttl", "10m", "k", "--", "sh", "-c", polite)
      const [pid] = (yield* program.line("in ")).split(" ")
      process.kill(Number(pid), "SIGKILL")
      const { code, stderr } = yield* ended(program)
      assert.deepStrictEqual([code, stderr], [137, ""], "also what the command has started ends")
      yield* seen(at, "k", ({ isHeld }) => !isHeld)
    }))

  it.live("shows, and tells whether locks can be taken", () =>
    Effect.gen(function*() {
      const at = yield* place
      assert.deepStrictEqual(yield* dlockEnds(at.env, "ping"), { code: 0, stdout: "", stderr: "" })
      const free = yield* dlockEnds(at.env, "inspect", "k")
      assert.deepStrictEqual([free.code, free.stderr], [0, ""])
      assert.match(free.stdout, /^the key is free\n/)
      const holder = yield* dlock(at.env, "run", "k", "--", "sh", "-c", polite)
      yield* holder.line("in ")
      const json = yield* dlockEnds(at.env, "inspect", "--json", "k")
      assert.match(json.stdout, /^\{"holder":\{.*\},"waiting":.*\}\n$/)
    }))
})
