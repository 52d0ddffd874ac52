import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
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
  settle,
  start
} from "./fixture.ts"

describe("the local line", () => {
  it.effect("is first come, first served, and only the head talks to the backend", () =>
    scenario(function*({ backend, lock }) {
      const order: Array<number> = []
      const fibers = yield* Effect.forEach(
        Array.from({ length: 10 }, (_, i) => i),
        (i) => start(lock.withLock("k", Effect.andThen(Effect.sync(() => order.push(i)), Effect.sleep(seconds(1)))))
      )
      assert.strictEqual(backend.log.length, 1, "nine stand in line in memory")
      yield* elapse(seconds(10))
      yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(order, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
      assertClean(backend)
    }))

  it.effect("of one key does not hold up another key", () =>
    scenario(function*({ backend, lock }) {
      const holder = yield* start(lock.withLock("a", Effect.never))
      const waiter = yield* start(lock.withLock("a", Effect.never))
      assert.strictEqual(yield* lock.withLock("b", Effect.succeed(1)), 1)
      yield* Fiber.interruptAll([holder, waiter])
      assertClean(backend)
    }))

  it.effect("a waiter that is interrupted leaves at once, from any place, without a word to the backend", () =>
    scenario(function*({ backend, lock }) {
      const order: Array<number> = []
      const holder = yield* start(lock.withLock("k", Effect.never))
      const waiters = yield* Effect.forEach(
        [0, 1, 2, 3, 4],
        (i) => start(lock.withLock("k", Effect.sync(() => order.push(i))))
      )
      for (const i of [0, 2, 4]) {
        const leaving = yield* start(Fiber.interrupt(waiters[i] ?? assert.fail()))
        assert.isFalse(isPending(leaving))
      }
      assert.strictEqual(backend.log.length, 1)
      yield* Fiber.interrupt(holder)
      yield* settle
      assert.deepStrictEqual(order, [1, 3])
      assertClean(backend)
    }))

  it.effect("the next request goes out together with the release before it", () =>
    scenario(function*({ backend, lock }) {
      backend.always("release", { before: 50, after: 50 })
      const first = yield* start(lock.withLock("k", Effect.sleep(seconds(1))))
      const second = yield* start(lock.withLock("k", Effect.void))
      yield* elapse(seconds(1))
      assert.deepStrictEqual(
        backend.log.map(({ at, owner, verb }) => [verb, backend.requests.findIndex((r) => r.owner === owner), at]),
        [["acquire", 0, 0], ["release", 0, 1000], ["acquire", 1, 1000]],
        "first the release, right behind it the next request"
      )
      assert.isTrue(isPending(first), "the release is not answered yet")
      yield* elapse(50)
      assert.strictEqual(backend.count("release"), 2, "the second has had the key")
      yield* elapse(150)
      yield* Fiber.joinAll([first, second])
      assertClean(backend)
    }))

  it.effect("a caller that asks while the release is on its way stands at the head", () =>
    scenario(function*({ backend, lock }) {
      backend.always("release", { before: 50, after: 50 })
      const first = yield* start(lock.withLock("k", Effect.void))
      const second = yield* start(lock.withLock("k", Effect.void))
      assert.strictEqual(backend.count("acquire"), 2, "it need not wait for the answer to the release")
      yield* elapse(300)
      yield* Fiber.joinAll([first, second])
      assertClean(backend)
    }))

  it.effect("a renewal in flight is answered first, then the release goes out, then the next request", () =>
    scenario(function*({ backend, lock }) {
      backend.script("renew", { before: 100 })
      const first = yield* start(lock.withLock("k", Effect.sleep(10_050)))
      const second = yield* start(lock.withLock("k", Effect.void))
      yield* elapse(10_050)
      assert.strictEqual(backend.count("renew"), 1)
      assert.strictEqual(backend.count("release"), 0, "the renewal is not answered yet")
      assert.strictEqual(backend.count("acquire"), 1, "no request overtakes the release")
      yield* elapse(100)
      yield* Fiber.joinAll([first, second])
      assert.deepStrictEqual(backend.log.map(({ verb }) => verb), ["acquire", "renew", "release", "acquire", "release"])
      assertClean(backend)
    }))

  it.effect.each(["Unreachable", "Timeout"] as const)(
    "a head that finds the backend %s fails all behind",
    (reason) =>
      Effect.gen(function*() {
        const { backend, lock } = yield* fixture()
        backend.script("acquire", { arrives: false, after: 500, fails: reason })
        backend.script("release", { before: 100 })
        const fibers = yield* Effect.forEach([0, 1, 2], () => start(lock.withLock("k", Effect.void)))
        yield* elapse(500)
        for (const fiber of fibers) {
          assertError(errorOf(ended(fiber, "at once"), "failed"), { _tag: "LockBackendError", reason })
        }
        assert.strictEqual(backend.count("acquire"), 1, "no other has asked")
        const again = yield* start(lock.withLock("k", Effect.succeed(1)))
        yield* elapse(100)
        assert.deepStrictEqual(ended(again, "a caller that asks again is asked for"), Exit.succeed(1))
        assertClean(backend)
      })
  )

  it.effect.each(["Rejected", "Unauthorized", "Protocol"] as const)(
    "an error %s is the head's own",
    (reason) =>
      Effect.gen(function*() {
        const { backend, lock } = yield* fixture()
        backend.script("acquire", { arrives: false, after: 500, fails: reason })
        const fibers = yield* Effect.forEach([0, 1], (i) => start(lock.withLock("k", Effect.succeed(i))))
        yield* elapse(500)
        assertError(errorOf(ended(fibers[0] ?? assert.fail(), "the head"), "failed"), { reason })
        assert.deepStrictEqual(ended(fibers[1] ?? assert.fail(), "the next"), Exit.succeed(1))
        assertClean(backend)
      })
  )

  it.effect("a head that times out or is interrupted makes room for the next", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      const holder = yield* start(stranger.withLock("k", Effect.never))
      const first = yield* start(lock.withLock("k", Effect.void, { timeout: "1 second" }))
      const second = yield* start(lock.withLock("k", Effect.void))
      const third = yield* start(lock.withLock("k", Effect.succeed(3)))
      yield* elapse(seconds(1))
      assertError(errorOf(ended(first, "timed out"), "timeout"), { reason: "timeout" })
      assert.strictEqual(
        backend.count("acquire"),
        2,
        "the second inherits the request that stands in the server's line"
      )
      yield* Fiber.interrupt(second)
      yield* settle
      yield* Fiber.interrupt(holder)
      yield* settle
      assert.deepStrictEqual(ended(third, "its turn"), Exit.succeed(3))
      assertClean(backend)
    }))

  it.effect("after a loss the place is free when the release is answered, not before", () =>
    scenario(function*({ backend, lock }) {
      const first = yield* start(lock.withLock("k", Effect.never))
      const second = yield* start(lock.withLock("k", Effect.succeed(2)))
      backend.always("release", { before: 300 })
      backend.rob("k")
      yield* elapse(299)
      assert.strictEqual(backend.count("acquire"), 1, "the next does not ask yet")
      yield* elapse(1)
      yield* elapse(300)
      assertError(errorOf(ended(first, "lost"), "lost"), { _tag: "LockLost" })
      assert.deepStrictEqual(ended(second, "its turn"), Exit.succeed(2))
      assertClean(backend)
    }))

  it.effect("after a loss the place is free when the release has failed", () =>
    scenario(function*({ backend, lock }) {
      yield* start(lock.withLock("k", Effect.never))
      const second = yield* start(lock.withLock("k", Effect.succeed(2)))
      backend.script("release", { arrives: false, after: 300, fails: "Timeout" })
      backend.rob("k")
      yield* elapse(300)
      assert.deepStrictEqual(ended(second, "its turn"), Exit.succeed(2))
      yield* elapse(seconds(1))
      assertClean(backend)
    }))

  it.effect("a backend that throws or dies does not block the line", () =>
    scenario(function*({ backend, lock }) {
      backend.script("acquire", { dies: "defect" }, { throws: new Error("thrown") })
      backend.script("tryAcquire", { dies: "defect" }, { throws: new Error("thrown") })
      for (let i = 0; i < 2; i++) {
        assert.isTrue(Exit.hasDies(yield* Effect.exit(lock.withLock("k", Effect.void))))
        assert.isTrue(Exit.hasDies(yield* Effect.exit(lock.tryAcquire("k"))))
      }
      assert.strictEqual(yield* lock.withLock("k", Effect.succeed(1)), 1)
      assertClean(backend)
    }))

  it.effect("of 20,000 short sections neither nests nor starves", () =>
    scenario(function*({ backend, lock }) {
      let count = 0
      let deepest = 0
      let depth = 0
      const section = lock.withLock(
        "k",
        Effect.suspend(() => {
          deepest = Math.max(deepest, ++depth)
          count++
          return Effect.sync(() => depth--)
        })
      )
      const holder = yield* start(lock.withLock("k", Effect.never))
      const all = yield* start(
        Effect.forEach(Array.from({ length: 20_000 }), () => section, { concurrency: "unbounded" })
      )
      yield* Fiber.interrupt(holder)
      yield* Fiber.join(all)
      assert.strictEqual(count, 20_000)
      assert.strictEqual(deepest, 1)
      assertClean(backend)
    }), 120_000)

  it.effect("a caller that releases is answered before the next section runs to its end", () =>
    scenario(function*({ lock }) {
      const order: Array<string> = []
      const gate = Effect.callback<void>((resume) => {
        queueMicrotask(() => resume(Effect.void))
      })
      const caller = (name: string, program: Effect.Effect<void>) =>
        Effect.andThen(lock.withLock("k", program), Effect.sync(() => order.push(name)))
      const fibers = yield* Effect.all([
        Effect.forkChild(caller("first", gate), { startImmediately: true }),
        Effect.forkChild(caller("second", Effect.void), { startImmediately: true }),
        Effect.forkChild(caller("third", Effect.void), { startImmediately: true })
      ])
      yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(order, ["first", "second", "third"])
    }))
})
