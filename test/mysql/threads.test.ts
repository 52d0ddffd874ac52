/**
 * MariaDB with a pool of threads, where each wait occupies a thread.
 */
import { MysqlLock } from "@dlock/mysql"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option } from "effect"
import { mariadb } from "../harness/MysqlServer.ts"
import { available } from "../harness/Program.ts"
import { connect, expectSome, freshKey, newRequest, optionsFor, rows, until, value } from "./support.ts"

const threads = 12

/** A server with few threads, and more keys that one of its sessions holds. */
const setting = Effect.gen(function*() {
  const server = yield* mariadb(["--thread-handling=pool-of-threads", `--thread-pool-max-threads=${threads}`])
  const bare = yield* connect(server)
  const keys = Array.from({ length: 3 * threads }, freshKey)
  yield* rows(bare, `SELECT ${keys.map((key) => `GET_LOCK('${key}', 0)`).join(", ")}`)
  const waits = value(bare, "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'")
  return {
    keys,
    program: MysqlLock.make({ ...optionsFor(server), commandTimeout: "2 seconds" }),
    waits: Effect.map(waits, Number),
    releaseAll: rows(bare, `SELECT ${keys.map((key) => `RELEASE_LOCK('${key}')`).join(", ")}`)
  }
})

describe.skipIf(!available("mariadb"))("a pool of threads", () => {
  it.live("one program with more waiters than threads leaves threads for releases", () =>
    Effect.gen(function*() {
      const { keys, program, releaseAll, waits } = yield* setting
      const backend = yield* program
      const own = newRequest(freshKey())
      expectSome(yield* backend.tryAcquire(own), "a free key is granted")
      const requests = keys.map((key) => newRequest(key))
      const waiting = yield* Effect.forEach(
        requests,
        (request) => Effect.forkScoped(backend.acquire(request), { startImmediately: true })
      )
      yield* until(Effect.map(waits, (n) => n === threads / 2))
      expectSome(yield* backend.renew(own, { fresh: true }), "a held key is renewed")
      assert.strictEqual(yield* backend.release(own), "released")
      assert.strictEqual(yield* waits, threads / 2, "the others stand in line for a connection")
      yield* releaseAll
      yield* Fiber.joinAll(waiting)
      const released = yield* Effect.forEach(requests, backend.release, { concurrency: "unbounded" })
      assert.isTrue(released.every((answer) => answer === "released"), "every waiter is granted its key, and keeps it")
    }), 120_000)

  it.live(
    "programs that occupy all threads together do so for no longer than their requests may wait",
    () =>
      Effect.gen(function*() {
        const { keys, program, releaseAll, waits } = yield* setting
        const programs = yield* Effect.all([program, program, program, program])
        const waiting = yield* Effect.forEach(keys, (key, i) => {
          const backend = programs[i % programs.length] ?? assert.fail("there are four programs")
          return Effect.forkScoped(Effect.exit(backend.acquire(newRequest(key))), { startImmediately: true })
        })
        // The server may have no thread for this question, or for some of the waits.
        yield* Effect.timeoutOption(until(Effect.map(waits, (n) => n >= threads)), "2 seconds")
        yield* releaseAll
        for (const fiber of waiting) {
          const exit = yield* Fiber.join(fiber)
          if (Exit.isFailure(exit)) {
            const error = Option.getOrThrow(Exit.findErrorOption(exit))
            assert.include(["Unreachable", "Timeout"], error.reason, "a lack of threads is an error that passes")
          }
        }
      }),
    120_000
  )
})
