import type { Lock } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option } from "effect"
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

const ask = (verb: "acquire" | "tryAcquire", lock: Lock["Service"]) =>
  verb === "acquire" ? Effect.asVoid(lock.acquire("k")) : Effect.asVoid(lock.tryAcquire("k"))

describe("a request with an unknown outcome is released", () => {
  it.effect("after the reply was lost, the attempt was granted, and the command timed out", () =>
    scenario(function*() {
      const { backend, lock } = yield* fixture({ commandTimeout: "5 seconds" })
      backend.script("acquire", { after: "never" })
      const fiber = yield* start(lock.withLock("k", Effect.die("run")))
      yield* elapse(seconds(5))
      assertError(errorOf(ended(fiber, "no hang"), "failed"), { _tag: "LockBackendError", reason: "Timeout" })
      assertClean(backend)
    }))

  it.effect("after an error, whether the server saw the request or not", () =>
    scenario(function*({ backend, lock }) {
      for (const arrives of [true, false]) {
        for (const verb of ["acquire", "tryAcquire"] as const) {
          backend.script(verb, { arrives, fails: "Unreachable" })
          const exit = yield* Effect.exit(ask(verb, lock))
          assertError(errorOf(exit, "failed"), { _tag: "LockBackendError", reason: "Unreachable", operation: verb })
          assertClean(backend)
        }
      }
      assert.strictEqual(backend.count("release"), 4)
    }))

  it.effect("in the line of the server, where the caller was interrupted", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      const holder = yield* start(stranger.withLock("k", Effect.never))
      const waiter = yield* start(lock.withLock("k", Effect.die("run")))
      yield* Fiber.interrupt(waiter)
      yield* Fiber.interrupt(holder)
      yield* settle
      assertClean(backend)
    }))

  it.effect("also when the release fails at first: until the request can hold nothing any more", () =>
    scenario(function*({ backend, lock }) {
      // The server has granted, the reply is lost, and the first words of the release are lost too.
      backend.script("tryAcquire", { fails: "Timeout" })
      backend.script("release", { arrives: false, fails: "Unreachable" }, { arrives: false, fails: "Timeout" })
      const fiber = yield* start(lock.tryAcquire("k", { ttl: "10 seconds" }))
      assertError(errorOf(ended(fiber, "answered at once"), "failed"), { reason: "Timeout" })
      yield* elapse(seconds(1))
      assert.strictEqual(backend.count("release"), 3, "tried again until it was answered")
      assertClean(backend)
    }))

  it.effect("a lease of its own is not released for longer than it can live", () =>
    scenario(function*({ backend, lock }) {
      backend.always("tryAcquire", { arrives: false, fails: "Unreachable" })
      backend.always("release", { arrives: false, fails: "Unreachable" })
      yield* Effect.exit(lock.tryAcquire("k", { ttl: "10 seconds" }))
      yield* elapse(seconds(9))
      const tries = backend.count("release")
      assert.isAtLeast(tries, 5)
      yield* elapse(seconds(3))
      assertClean(backend)
      yield* elapse(seconds(100))
      assert.isAtMost(backend.count("release"), tries + 2)
    }))

  it.effect("on a session it is released until that is answered", () =>
    scenario(function*() {
      const { backend, lock } = yield* fixture({ freedBy: "session" })
      backend.script("tryAcquire", { fails: "Timeout" })
      backend.always("release", { arrives: false, fails: "Unreachable" })
      yield* Effect.exit(lock.tryAcquire("k", { ttl: "10 seconds" }))
      yield* elapse(seconds(600))
      const tries = backend.count("release")
      assert.isAtLeast(tries, 500, "about every second")
      assert.isAtMost(tries, 700)
      backend.always("release", {})
      yield* elapse(seconds(1))
      assertClean(backend)
    }))
})

describe("a frozen connection that heals after the release", () => {
  it.effect.each(["acquire", "tryAcquire"] as const)("%s: the release wins", (verb) =>
    scenario(function*() {
      const { backend, lock } = yield* fixture({ commandTimeout: "1 second" })
      backend.freeze()
      const fiber = yield* start(ask(verb, lock))
      yield* elapse(seconds(1))
      assertError(errorOf(ended(fiber, "no hang"), "failed"), { reason: "Timeout" })
      yield* elapse(seconds(1))
      yield* backend.thaw
      yield* settle
      yield* elapse(seconds(3))
      assertClean(backend)
      assert.isTrue(Option.isSome(yield* Effect.scoped(lock.tryAcquire("k"))), "the key is free")
    }))

  it.effect("also when the request overtakes nothing: it arrives last, after the answer to the release", () =>
    scenario(function*() {
      const { backend, lock } = yield* fixture({ commandTimeout: "1 second" })
      backend.script("acquire", { before: "3 seconds" })
      const fiber = yield* start(lock.withLock("k", Effect.die("run")))
      yield* elapse(seconds(1))
      assertError(errorOf(ended(fiber, "no hang"), "failed"), { reason: "Timeout" })
      assert.strictEqual(backend.count("release"), 1)
      yield* elapse(seconds(2))
      assertClean(backend)
    }))

  it.effect("an interrupted caller goes on after a second, and the release in the background", () =>
    scenario(function*({ backend, lock }) {
      backend.freeze()
      const fiber = yield* start(lock.withLock("k", Effect.die("run")))
      const interrupting = yield* start(Fiber.interrupt(fiber))
      yield* elapse(999)
      assert.isTrue(isPending(interrupting))
      yield* elapse(1)
      assert.isFalse(isPending(interrupting))
      yield* backend.thaw
      yield* settle
      assertClean(backend)
    }))
})

describe("a request that is sent twice", () => {
  it.effect("changes nothing, whichever verb", () =>
    scenario(function*({ backend, lock }) {
      for (const verb of ["acquire", "tryAcquire", "renew", "release"] as const) backend.always(verb, { twice: true })
      const fiber = yield* start(lock.withLock("k", Effect.as(Effect.sleep("1 minute"), 1)))
      yield* elapse(seconds(60))
      assert.deepStrictEqual(ended(fiber, "held"), Exit.succeed(1))
      assert.strictEqual(yield* lock.withLock("k", Effect.succeed(2), { timeout: 0 }), 2)
      assertClean(backend)
    }))
})
