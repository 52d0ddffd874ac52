import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import {
  assertClean,
  assertError,
  build,
  elapse,
  ended,
  errorOf,
  isPending,
  scenario,
  seconds,
  settle,
  start
} from "./fixture.ts"

describe("closing the layer", () => {
  it.effect("ends sections and leases, and gives them back", () =>
    scenario(function*({ backend, close, lock }) {
      const events: Array<string> = []
      backend.always("release", { before: 10, onServed: () => events.push("released") })
      const program = Effect.onInterrupt(Effect.never, () =>
        Effect.andThen(Effect.sleep(15), Effect.sync(() => events.push("closed"))))
      const section = yield* start(lock.withLock("a", program))
      const lease = yield* lock.acquire("b")
      const closing = yield* start(close)
      yield* elapse(24)
      assert.isTrue(isPending(closing), "it waits for what is to be released")
      yield* elapse(1)
      assert.isTrue(Exit.isSuccess(ended(closing, "released")))
      assert.deepStrictEqual(events, ["released", "closed", "released"])
      assertError(errorOf(ended(section, "ended"), "lost"), { _tag: "LockLost", reason: "closed" })
      assert.isFalse(yield* lease.isHeld)
      assertError(yield* Effect.flip(lease.lost), { reason: "closed" })
      assertClean(backend)
    }))

  it.effect("ends those that ask and those that stand in line, and releases what they may have got", () =>
    scenario(function*({ backend, close, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      const holder = yield* start(stranger.withLock("k", Effect.never))
      const asking = yield* Effect.all([
        start(Effect.asVoid(lock.withLock("k", Effect.die("run")))),
        start(Effect.asVoid(lock.withLock("k", Effect.die("run")))),
        start(Effect.asVoid(Effect.scoped(lock.acquire("k"))))
      ])
      yield* close
      yield* settle
      for (const fiber of asking) {
        assertError(errorOf(ended(fiber, "answered"), "closed"), { _tag: "LockBackendError", reason: "Closed" })
      }
      yield* Fiber.interrupt(holder)
      yield* settle
      assertClean(backend)
    }))

  it.effect("answers those in the local line at once, though the release before them hangs", () =>
    scenario(function*({ backend, close, lock }) {
      backend.always("release", { before: seconds(10) })
      yield* start(lock.withLock("k", Effect.never))
      const waiter = yield* start(lock.withLock("k", Effect.die("run")))
      yield* start(close)
      const error = errorOf(ended(waiter, "at once"), "closed")
      assertError(error, { _tag: "LockBackendError", reason: "Closed" })
      yield* elapse(seconds(10))
      assertClean(backend)
    }))

  it.effect("waits a second for what hangs, and no longer", () =>
    scenario(function*({ backend, close, lock }) {
      backend.always("release", { before: seconds(10) })
      const section = yield* start(lock.withLock("a", Effect.never))
      yield* lock.acquire("b")
      const giving = yield* start(lock.withLock("c", Effect.succeed(1)))
      const closing = yield* start(close)
      yield* elapse(seconds(1))
      assert.isTrue(Exit.isSuccess(ended(closing, "after a second")))
      assertError(errorOf(ended(section, "answered too"), "lost"), { reason: "closed" })
      assert.deepStrictEqual(ended(giving, "answered too"), Exit.succeed(1))
      yield* elapse(seconds(10))
      assertClean(backend)
    }))

  it.effect("tries a failing release again while it waits", () =>
    scenario(function*({ backend, close, lock }) {
      backend.script("release", { arrives: false, fails: "Unreachable" }, { arrives: false, fails: "Timeout" })
      yield* lock.acquire("k")
      const closing = yield* start(close)
      yield* elapse(seconds(1))
      assert.isTrue(Exit.isSuccess(ended(closing, "released")))
      assertClean(backend)
    }))

  it.effect("refuses what asks afterwards, and nothing is sent", () =>
    scenario(function*({ backend, close, lock }) {
      yield* close
      for (
        const ask of [
          Effect.asVoid(lock.withLock("k", Effect.die("run"))),
          Effect.asVoid(lock.withLockIfAvailable("k", Effect.die("run"))),
          Effect.asVoid(lock.acquire("k")),
          Effect.asVoid(lock.tryAcquire("k"))
        ]
      ) {
        const error = errorOf(yield* Effect.exit(ask), "closed")
        assertError(error, { _tag: "LockBackendError", reason: "Closed" })
      }
      assert.deepStrictEqual(backend.log, [])
    }))

  it.effect("before the scope of a lease does not hold up that scope", () =>
    scenario(function*({ backend, close, lock }) {
      backend.always("release", { before: seconds(10) })
      const scoped = yield* start(Effect.scoped(Effect.gen(function*() {
        const lease = yield* lock.acquire("k")
        yield* Effect.flip(lease.lost)
        yield* Effect.sleep(seconds(2))
      })))
      const closing = yield* start(close)
      yield* elapse(seconds(3))
      assert.isTrue(Exit.isSuccess(ended(closing, "closed")) && Exit.isSuccess(ended(scoped, "closed too")))
    }))

  it.effect("while nothing is held is at once, and leaves nothing", () =>
    scenario(function*({ backend, close, lock }) {
      yield* lock.withLock("k", Effect.void)
      yield* close
      assertClean(backend)
    }))
})
