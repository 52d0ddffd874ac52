import { InvalidLockRequest, LockUnavailable } from "@dlock/core"
import type { Lock } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Option } from "effect"
import {
  assertClean,
  assertError,
  build,
  elapse,
  ended,
  errorOf,
  fixture,
  isPending,
  scenario,
  seconds,
  start
} from "./fixture.ts"

const surrogate = "\ud800"

const check = (key: string, ttl: number) =>
  key === "bad" ? "this key is bad" : ttl < 1000 ? "too short a ttl" : undefined

describe("bad requests are refused before anything is sent", () => {
  const bad: ReadonlyArray<readonly [name: string, key: string, options: Lock.Options, problem: RegExp]> = [
    ["an empty key", "", {}, /empty/],
    ["a key of 1025 bytes", "x".repeat(1025), {}, /1024 bytes/],
    ["a key of 342 three-byte characters", "\u20ac".repeat(342), {}, /1024 bytes/],
    ["an unpaired surrogate", `a${surrogate}`, {}, /well-formed/],
    ["a ttl of zero", "k", { ttl: 0 }, /ttl/],
    ["a negative ttl", "k", { ttl: -1 }, /ttl must (not be negative|be)/],
    ["an infinite ttl", "k", { ttl: Infinity }, /ttl/],
    ["a ttl that is no number", "k", { ttl: NaN }, /ttl/],
    ["a ttl shorter than the error of the clocks", "k", { ttl: 2 }, /ttl/],
    ["renewals every 0 ms", "k", { renew: 0 }, /renew/],
    ["a negative time between renewals", "k", { renew: -1 }, /renew/],
    ["renewals after the ttl", "k", { ttl: 1000, renew: 1000 }, /renew/],
    ["maxHold of zero", "k", { maxHold: 0 }, /maxHold/],
    ["a negative maxHold", "k", { maxHold: -5 }, /maxHold/],
    ["a negative timeout", "k", { timeout: -5 }, /timeout/],
    ["an owner that is no text", "k", { owner: JSON.parse("7") }, /owner/],
    ["an ill-formed owner", "k", { owner: surrogate }, /owner/],
    ["an over-long owner", "k", { owner: "o".repeat(129) }, /owner/]
  ]

  it.effect.each(bad)("%s", ([, key, options, problem]) =>
    scenario(function*({ backend, lock }) {
      const calls = [
        Effect.asVoid(lock.withLock(key, Effect.die("run"), options)),
        Effect.asVoid(lock.withLockIfAvailable(key, Effect.die("run"), options)),
        Effect.asVoid(lock.acquire(key, options)),
        Effect.asVoid(lock.tryAcquire(key, options))
      ]
      for (const call of calls) {
        const error = errorOf(yield* Effect.exit(call), "refused")
        assert.instanceOf(error, InvalidLockRequest)
        assert.match(error.message, problem)
      }
      assert.deepStrictEqual(backend.log, [], "nothing was sent")
      assertClean(backend)
    }))

  it.effect("what the backend says is wrong", () =>
    scenario(function*() {
      const { backend, lock } = yield* fixture({ check })
      for (
        const [key, options, problem] of [["bad", {}, "this key is bad"], [
          "k",
          { ttl: 10 },
          "too short a ttl"
        ]] as const
      ) {
        const error = errorOf(yield* Effect.exit(lock.withLock(key, Effect.void, options)), "refused")
        assertError(error, { _tag: "InvalidLockRequest", key, problem })
      }
      assert.deepStrictEqual(backend.log, [])
    }))

  it.effect("keys and owners at the limits are good", () =>
    scenario(function*({ lock }) {
      for (const key of ["x".repeat(1024), "\u20ac".repeat(341), " ", "\u{1f512}", "a/b{c}'\"\\\n\0"]) {
        assert.strictEqual(yield* lock.withLock(key, (lease) => Effect.succeed(lease.key)), key)
      }
      yield* lock.withLock("k", Effect.void, { owner: "o".repeat(128) })
    }))
})

describe("defaults and the owner", () => {
  it.effect("30 seconds, renewed every 10, for as long as the program takes", () =>
    scenario(function*({ backend, lock }) {
      const fiber = yield* start(lock.withLock("k", Effect.sleep("10 minutes")))
      const [request] = backend.requests
      assert.deepStrictEqual(request?.ttl, 30_000)
      yield* elapse(seconds(9))
      assert.strictEqual(backend.count("renew"), 0)
      yield* elapse(seconds(2))
      assert.strictEqual(backend.count("renew"), 1)
      yield* elapse(seconds(589))
      assert.isTrue(Exit.isSuccess(ended(fiber, "held all the time")))
      assert.isAtMost(backend.count("renew"), 63, "not much more often than every 10 seconds")
      assertClean(backend)
    }))

  it.effect("the owner is the label and something unique, fresh for each attempt", () =>
    scenario(function*({ backend, lock }) {
      const owner = lock.withLock("k", (lease) => Effect.succeed(lease.owner), { owner: "worker 7" })
      const [a, b] = [yield* owner, yield* owner]
      assert.match(a, /^worker 7\/[0-9a-f-]{36}$/)
      assert.notStrictEqual(a, b)
      yield* lock.withLock("k", Effect.void)
      assert.match(backend.requests[2]?.owner ?? "", /^.+:\d+\/[0-9a-f-]{36}$/, "the host and the process by default")
    }))

  it.effect("ttl and renew reach the backend", () =>
    scenario(function*({ backend, lock }) {
      const fiber = yield* start(lock.withLock("k", Effect.never, { ttl: "10 seconds", renew: "2 seconds" }))
      assert.deepStrictEqual(backend.requests[0]?.ttl, 10_000)
      yield* elapse(seconds(20))
      assert.isAtLeast(backend.count("renew"), 9)
      assert.isAtMost(backend.count("renew"), 11)
      yield* Fiber.interrupt(fiber)
      assertClean(backend)
    }))

  it.effect("an interval that the ttl has no room for does not cost the lease", () =>
    scenario(function*({ lock }) {
      const fiber = yield* start(lock.withLock("k", Effect.never, { ttl: "10 seconds", renew: "9.95 seconds" }))
      yield* elapse(seconds(60))
      assert.isTrue(isPending(fiber), "it was renewed in time")
    }))
})

describe("timeout", () => {
  it.effect("answers in time while another owner holds the key, and nothing stays queued", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      const holder = yield* start(stranger.withLock("k", Effect.never))
      const waiters = yield* Effect.all([
        start(lock.withLock("k", Effect.void, { timeout: "3 seconds" })),
        start(Effect.asVoid(Effect.scoped(lock.acquire("k", { timeout: "3 seconds" }))))
      ])
      yield* elapse(2999)
      assert.isTrue(waiters.every(isPending))
      yield* elapse(1)
      for (const waiter of waiters) {
        const error = errorOf(ended(waiter, "in time"), "timeout")
        assert.instanceOf(error, LockUnavailable)
        assert.strictEqual(error.reason, "timeout")
      }
      yield* Fiber.interrupt(holder)
      assertClean(backend)
    }))

  it.effect("answers in time though the backend hangs, in asking and in releasing", () =>
    scenario(function*({ backend, lock }) {
      backend.always("acquire", { before: "1 minute" })
      backend.always("release", { before: "1 minute" })
      const section = yield* start(lock.withLock("k", Effect.void, { timeout: "3 seconds" }))
      const lease = yield* start(Effect.asVoid(Effect.scoped(lock.acquire("other", { timeout: "3 seconds" }))))
      yield* elapse(seconds(3))
      for (const fiber of [section, lease]) {
        assertError(errorOf(ended(fiber, "in time"), "timeout"), { reason: "timeout" })
      }
      yield* elapse(seconds(60))
      assertClean(backend, "withdrawing went on in the background")
    }))

  it.effect("of zero is one attempt, and takes a free key also from a backend that takes its time", () =>
    scenario(function*({ backend, lock }) {
      backend.always("tryAcquire", { before: 20, after: 20 })
      const fiber = yield* start(lock.withLock("k", Effect.succeed("mine"), { timeout: 0 }))
      yield* elapse(40)
      assert.deepStrictEqual(ended(fiber, "answered"), Exit.succeed("mine"))
      const stranger = yield* build(backend, yield* Effect.scope)
      yield* stranger.acquire("k")
      const refused = yield* start(lock.withLock("k", Effect.void, { timeout: 0 }))
      yield* elapse(40)
      assert.strictEqual(errorOf(ended(refused, "answered"), "held")._tag, "LockUnavailable")
      assert.strictEqual(backend.count("acquire"), 1, "it never stands in line")
    }))

  it.effect("does not count once the lock is held", () =>
    scenario(function*({ lock }) {
      const fiber = yield* start(lock.withLock("k", Effect.as(Effect.sleep("1 minute"), 1), { timeout: "1 second" }))
      yield* elapse(seconds(60))
      assert.deepStrictEqual(ended(fiber, "the program has its time"), Exit.succeed(1))
    }))
})

describe("reentry", () => {
  const reentry = { _tag: "LockUnavailable", reason: "reentry" }

  it.effect("is told to every fiber inside the section that asks, and sends nothing", () =>
    scenario(function*({ backend, lock }) {
      yield* lock.withLock(
        "k",
        Effect.gen(function*() {
          const asked = backend.log.length
          const again = Effect.flip(lock.withLock("k", Effect.die("run")))
          assertError(yield* again, reentry)
          assertError(yield* Effect.flip(lock.acquire("k")), reentry)
          assertError(yield* Effect.flatMap(Effect.forkDetach(again), Fiber.join), reentry, "a forked fiber")
          assertError(yield* lock.withLock("other", again), reentry, "through another section")
          assert.deepStrictEqual(yield* lock.withLockIfAvailable("k", Effect.die("run")), Option.none())
          assert.deepStrictEqual(yield* lock.tryAcquire("k"), Option.none())
          assert.strictEqual(backend.log.filter((asked) => asked.key === "k").length, asked)
        })
      )
      assertClean(backend)
    }))

  it.effect("is another matter after an early release, for another key, and for another Lock", () =>
    scenario(function*({ backend, lock }) {
      const elsewhere = yield* fixture()
      const inner = lock.withLock("k", (lease) =>
        Effect.gen(function*() {
          yield* lock.withLock("k2", Effect.void)
          yield* elsewhere.lock.withLock("k", Effect.void)
          yield* lease.release
          return yield* lock.withLock("k", Effect.succeed("again"))
        }))
      assert.strictEqual(yield* inner, "again")
      assertClean(backend)
      assertClean(elsewhere.backend)
    }))

  it.effect("does not outlive the section", () =>
    scenario(function*({ lock }) {
      const later = yield* lock.withLock(
        "k",
        Effect.forkDetach(Effect.andThen(Effect.sleep("1 second"), lock.withLock("k", Effect.succeed("mine"))))
      )
      yield* elapse(seconds(1))
      assert.deepStrictEqual(ended(later, "the key is free"), Exit.succeed("mine"))
    }))

  it.effect("does not remember the sections of those that started a fiber, once they have ended", () =>
    scenario(function*({ lock }) {
      interface Section {
        readonly outer: Section | undefined
      }
      const current = Context.Reference<Section | undefined>("@dlock/core/CurrentSection", {
        defaultValue: () => undefined
      })
      let longest = 0
      const count = Effect.map(Effect.context<never>(), (context) => {
        let length = 0
        for (let at = Context.get(context, current); at !== undefined; at = at.outer) length++
        longest = Math.max(longest, length)
      })
      // Each job starts the next one before it ends.
      const job = (n: number): Effect.Effect<void, unknown> =>
        lock.withLock(
          `job ${n}`,
          Effect.gen(function*() {
            yield* count
            yield* Effect.sleep(1)
            if (n < 50) yield* Effect.forkDetach(job(n + 1), { startImmediately: true })
            yield* Effect.sleep(1)
          })
        )
      yield* start(job(1))
      for (let i = 0; i < 60; i++) yield* elapse(1)
      assert.isAtMost(longest, 3, "those that are not over yet")
    }))
})
