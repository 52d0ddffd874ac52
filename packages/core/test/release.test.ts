import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Logger } from "effect"
import {
  assertClean,
  assertError,
  elapse,
  ended,
  errorOf,
  fixture,
  isPending,
  scenario,
  seconds,
  start
} from "./fixture.ts"

describe("releasing", () => {
  it.effect("that hangs holds its caller for a second, never its result", () =>
    scenario(function*({ backend, lock }) {
      backend.always("release", { before: "1 minute" })
      const program = yield* start(lock.withLock("a", Effect.succeed(1)))
      const failing = yield* start(lock.withLock("b", Effect.fail("mine")))
      const lease = yield* start(Effect.scoped(Effect.as(lock.acquire("c"), 3)))
      const releasing = yield* start(Effect.scoped(Effect.flatMap(lock.acquire("d"), (lease) => lease.release)))
      yield* elapse(999)
      assert.isTrue(isPending(program) && isPending(failing) && isPending(lease) && isPending(releasing))
      yield* elapse(1)
      assert.deepStrictEqual(ended(program, "after a second"), Exit.succeed(1))
      assert.deepStrictEqual(ended(failing, "after a second"), Exit.fail("mine"))
      assert.deepStrictEqual(ended(lease, "after a second"), Exit.succeed(3))
      yield* elapse(seconds(1))
      assertError(errorOf(ended(releasing, "asked by hand"), "not answered"), {
        reason: "Timeout",
        operation: "release"
      })
      yield* elapse(seconds(60))
      assertClean(backend)
    }))

  it.effect("goes on when a logger dies", () =>
    scenario(function*({ backend, lock }) {
      backend.script("release", { arrives: false, fails: "Unreachable" }, { arrives: false, fails: "Unreachable" })
      const logger = Logger.make(() => {
        throw new Error("the disk is full")
      })
      const section = yield* start(
        Effect.provideService(lock.withLock("k", Effect.succeed(1)), Logger.CurrentLoggers, new Set([logger]))
      )
      yield* elapse(seconds(1))
      assert.deepStrictEqual(ended(section, "released"), Exit.succeed(1))
      assertClean(backend)
    }))

  it.effect("that fails is tried again; the result of the program is its own", () =>
    scenario(function*({ backend, lock }) {
      for (const reason of ["Unreachable", "Timeout", "Rejected", "Protocol"] as const) {
        backend.script("release", { arrives: false, fails: reason }, { arrives: false, fails: reason })
        const fiber = yield* start(lock.withLock("k", Effect.succeed(reason)))
        yield* elapse(seconds(1))
        assert.deepStrictEqual(ended(fiber, "answered"), Exit.succeed(reason))
        assertClean(backend)
      }
    }))

  it.effect("that dies is an answer that is not known: it is tried again", () =>
    scenario(function*({ backend, lock }) {
      backend.script("release", { arrives: false, dies: "defect" }, { throws: new Error("thrown") })
      const fiber = yield* start(lock.withLock("k", Effect.succeed(1)))
      yield* elapse(seconds(1))
      assert.deepStrictEqual(ended(fiber, "answered"), Exit.succeed(1))
      assertClean(backend)
    }))

  it.effect("goes on until a lease of its own has ended, and no longer", () =>
    scenario(function*({ backend, lock }) {
      backend.always("release", { arrives: false, fails: "Unreachable" })
      const fiber = yield* start(lock.withLock("k", Effect.void, { ttl: "10 seconds" }))
      yield* elapse(seconds(1))
      assert.isTrue(Exit.isSuccess(ended(fiber, "the caller goes on")))
      yield* elapse(seconds(8))
      const tries = backend.count("release")
      yield* elapse(seconds(100))
      assert.isAtLeast(tries, 8)
      assert.isAtMost(backend.count("release"), tries + 2)
    }))

  it.effect("counts from the last renewal that may have been served", () =>
    scenario(function*({ backend, lock }) {
      backend.always("release", { arrives: false, fails: "Unreachable" })
      // The renewal after 3.3 seconds is served, and its answer is lost.
      backend.script("renew", { fails: "Timeout" })
      const fiber = yield* start(lock.withLock("k", Effect.sleep(3_400), { ttl: "10 seconds" }))
      yield* elapse(13_000)
      assert.isTrue(Exit.isSuccess(ended(fiber, "the caller goes on")))
      const tries = backend.count("release")
      backend.always("release", {})
      yield* elapse(seconds(1))
      assert.strictEqual(backend.count("release"), tries + 1)
      assertClean(backend)
    }))

  it.effect("of a session's lease goes on until it is answered, and false is an answer", () =>
    scenario(function*() {
      const { backend, lock } = yield* fixture({ freedBy: "session" })
      backend.always("release", { arrives: false, fails: "Unreachable" })
      yield* start(lock.withLock("k", Effect.void, { ttl: "10 seconds" }))
      yield* elapse(seconds(300))
      backend.always("release", {})
      const tries = backend.count("release")
      yield* elapse(seconds(1))
      assert.strictEqual(backend.count("release"), tries + 1)
      assertClean(backend)
    }))

  it.effect("waits for a renewal in flight, but not for one that is never answered", () =>
    scenario(function*({ backend, lock }) {
      backend.always("renew", { after: "never" })
      const first = yield* start(lock.withLock("k", Effect.never))
      const second = yield* start(lock.withLock("k", Effect.succeed(2)))
      yield* elapse(seconds(31))
      assertError(errorOf(ended(first, "at the deadline"), "lost"), { _tag: "LockLost", reason: "expired" })
      yield* elapse(seconds(5))
      assert.deepStrictEqual(ended(second, "the line goes on"), Exit.succeed(2))
      assertClean(backend)
    }))

  it.effect("by hand in the program ends the lease, not the program", () =>
    scenario(function*({ backend, lock }) {
      const fiber = yield* start(
        lock.withLock("k", (lease) => Effect.andThen(lease.release, Effect.as(Effect.sleep("10 minutes"), 1)))
      )
      assertClean(backend)
      assert.strictEqual(yield* lock.withLock("k", Effect.succeed(2)), 2)
      yield* elapse(seconds(600))
      assert.deepStrictEqual(ended(fiber, "the program went on"), Exit.succeed(1))
      assert.strictEqual(backend.count("release"), 2)
    }))

  it.effect("of a lease that was lost is sent too", () =>
    scenario(function*({ backend, lock }) {
      const options = [{ ttl: "10 seconds", renew: false }, { maxHold: "5 seconds" }] as const
      const sections = yield* Effect.forEach(options, (options, i) =>
        start(lock.withLock(`k${i}`, Effect.never, options)))
      yield* elapse(seconds(10))
      const reasons = sections.map((fiber) =>
        errorOf(ended(fiber, "lost"), "lost")
      )
      assertError(reasons[0], { _tag: "LockLost", reason: "expired" })
      assertError(reasons[1], { _tag: "LockLost", reason: "maxHold" })
      assert.strictEqual(backend.count("release"), 2)
      assertClean(backend)
    }))

  it.effect("of a lost lease waits for the section to close what it opened, until the backend lets go by itself", () =>
    scenario(function*({ backend, lock }) {
      const events: Array<string> = []
      const slow = Effect.onInterrupt(
        Effect.never,
        () => Effect.andThen(Effect.sleep("4 seconds"), Effect.sync(() => events.push("closed")))
      )
      backend.always("release", { onServed: () => events.push("released") })
      const fiber = yield* start(lock.withLock("k", slow, { maxHold: "5 seconds" }))
      yield* elapse(seconds(5))
      assert.isTrue(isPending(fiber))
      assert.deepStrictEqual(events, [])
      yield* elapse(seconds(4))
      assertError(errorOf(ended(fiber, "closed"), "lost"), { reason: "maxHold" })
      assert.deepStrictEqual(events, ["closed", "released"])
      const slower = yield* start(
        lock.withLock("k", Effect.onInterrupt(Effect.never, () => Effect.sleep("1 minute")), {
          ttl: "9 seconds",
          renew: false
        })
      )
      yield* elapse(seconds(9))
      assert.strictEqual(backend.count("release"), 2, "the key is released when its time is over")
      assert.isTrue(isPending(slower), "the section still closes what it opened")
      yield* elapse(seconds(60))
      assertError(errorOf(ended(slower, "closed"), "lost"), { reason: "expired" })
      assertClean(backend)
    }))

  it.effect("of a lease held by a scope that is lost happens without the scope", () =>
    scenario(function*({ backend, lock }) {
      const lease = yield* lock.acquire("k", { maxHold: "5 seconds", ttl: "10 seconds" })
      const waiter = yield* start(lock.withLock("k", Effect.succeed(1)))
      yield* elapse(seconds(5))
      assert.isFalse(yield* lease.isHeld)
      yield* elapse(seconds(10))
      assert.deepStrictEqual(ended(waiter, "its turn"), Exit.succeed(1))
      assertClean(backend)
    }))

  it.effect("is not stopped by an interruption of the fiber that closes the scope", () =>
    scenario(function*({ backend, lock }) {
      backend.always("release", { before: 20 })
      const fiber = yield* start(Effect.scoped(lock.acquire("k")))
      const interrupting = yield* start(Fiber.interrupt(fiber))
      yield* elapse(20)
      assert.isFalse(isPending(interrupting))
      assertClean(backend)
    }))
})
