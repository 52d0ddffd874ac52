import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { readFileSync } from "node:fs"
import { assertFailure, backends, dlock, dlockEnds, ended, patience, polite, seen, stubborn } from "./support.ts"

/** Long enough that a busy machine renews in time. */
const ttl = 9000

const children = (pid: number) => `/proc/${pid}/task/${pid}/children`

describe.each(backends)("a command of dlock over $name that nothing protects", patience, ({ name, place, revokes }) => {
  it.live("ends when dlock is killed, with what it has started", () =>
    Effect.gen(function*() {
      const at = yield* place
      const program = yield* dlock(at.env, "run", "--ttl", "60s", "k", "--", "sh", "-c", polite)
      yield* program.line("in ")
      const since = yield* Clock.currentTimeMillis
      yield* program.signal("SIGKILL")
      yield* program.line("term")
      yield* program.closed
      assert.isBelow((yield* Clock.currentTimeMillis) - since, 60_000)
    }))

  it.live("is killed when dlock is killed and it does not end by itself", () =>
    Effect.gen(function*() {
      const at = yield* place
      const program = yield* dlock(at.env, "run", "--kill-after", "500ms", "k", "--", "sh", "-c", stubborn)
      yield* program.line("in ")
      yield* program.signal("SIGKILL")
      yield* program.line("term")
      yield* program.closed
    }))

  it.live("ends before the deadline while dlock is frozen", () =>
    Effect.gen(function*() {
      const at = yield* place
      const program = yield* dlock(at.env, "run", "--ttl", `${ttl}ms`, "k", "--", "sh", "-c", polite)
      const rest = yield* program.line("in ")
      const since = yield* Clock.currentTimeMillis
      yield* program.signal("SIGSTOP")
      yield* program.line("term")
      assert.isBelow((yield* Clock.currentTimeMillis) - since, ttl)
      yield* program.signal("SIGCONT")
      assertFailure(yield* ended(program), 70, /Lock "k"/, `in ${rest}\nterm\n`)
    }))

  it.live("ends before the deadline when the server is gone", () =>
    Effect.gen(function*() {
      const at = yield* place
      const program = yield* dlock(at.env, "run", "--ttl", `${ttl}ms`, "k", "--", "sh", "-c", polite)
      const rest = yield* program.line("in ")
      const since = yield* Clock.currentTimeMillis
      yield* at.server.pause
      yield* program.line("term")
      assert.isBelow((yield* Clock.currentTimeMillis) - since, ttl)
      assertFailure(yield* ended(program), 70, /Lock "k"/, `in ${rest}\nterm\n`)
      yield* at.server.resume
    }))

  it.live("is killed at the deadline when it does not end by itself", () =>
    Effect.gen(function*() {
      const at = yield* place
      const options = ["--ttl", `${ttl}ms`, "--kill-after", "3s", "--exit-lost", "42"]
      const program = yield* dlock(at.env, "run", ...options, "k", "--", "sh", "-c", stubborn)
      const rest = yield* program.line("in ")
      const since = yield* Clock.currentTimeMillis
      yield* at.server.pause
      yield* program.line("term")
      const told = yield* Clock.currentTimeMillis
      const end = yield* ended(program)
      const now = yield* Clock.currentTimeMillis
      assertFailure(end, 42, /Lock "k"/, end.stdout)
      assert.match(end.stdout, new RegExp(`^in ${rest}\n(term\n)+$`))
      assert.isBelow(told - since, ttl - 2000, "SIGTERM comes --kill-after before the deadline")
      assert.isAbove(now - told, 1500, "and SIGKILL at the deadline")
      yield* at.server.resume
    }))

  it.live.runIf(revokes)("ends at once when its key is taken", () =>
    Effect.gen(function*() {
      const at = yield* place
      const options = ["--ttl", "24s", "--kill-after", "12s"]
      const program = yield* dlock(at.env, "run", ...options, "k", "--", "sh", "-c", stubborn)
      const [, owner = ""] = (yield* program.line("in ")).split(" ")
      assertFailure(yield* dlockEnds(at.env, "revoke", "k", "somebody/else"), 75, /not held by somebody\/else/)
      assert.deepStrictEqual(yield* dlockEnds(at.env, "revoke", "k", owner), { code: 0, stdout: "", stderr: "" })
      const told = yield* Effect.raceFirst(Effect.asVoid(program.line("term")), program.closed).pipe(
        Effect.andThen(Clock.currentTimeMillis)
      )
      yield* program.closed
      assert.isBelow((yield* Clock.currentTimeMillis) - told, 10_000, "SIGKILL does not wait")
      assert.strictEqual(yield* program.exit, 70)
      assert.match(program.stderr(), /^dlock: Lock "k" [^\n]*no longer has it as holder\n$/)
    }))

  it.live.skipIf(revokes)("is not taken away by a backend that cannot", () =>
    Effect.gen(function*() {
      const at = yield* place
      assertFailure(
        yield* dlockEnds(at.env, "revoke", "k", "somebody/else"),
        69,
        new RegExp(`${name} could not revoke`)
      )
    }))

  it.live("ends at --max-hold", () =>
    Effect.gen(function*() {
      const at = yield* place
      const program = yield* dlock(at.env, "run", "--max-hold", "3s", "k", "--", "sh", "-c", polite)
      const rest = yield* program.line("in ")
      assertFailure(yield* ended(program), 70, /--max-hold|maxHold/, `in ${rest}\nterm\n`)
      yield* seen(at, "k", ({ isHeld }) => !isHeld)
    }))

  it.live.runIf(process.platform === "linux")("ends when its watcher dies", () =>
    Effect.gen(function*() {
      const at = yield* place
      const program = yield* dlock(at.env, "run", "k", "--", "sh", "-c", polite)
      const rest = yield* program.line("in ")
      const [command] = rest.split(" ")
      for (const pid of readFileSync(children(program.pid), "utf8").trim().split(" ")) {
        if (pid !== command) process.kill(Number(pid), "SIGKILL")
      }
      assertFailure(
        yield* ended(program),
        69,
        /the process that watches over the command has died/,
        `in ${rest}\nterm\n`
      )
      yield* seen(at, "k", ({ isHeld }) => !isHeld)
    }))
})
