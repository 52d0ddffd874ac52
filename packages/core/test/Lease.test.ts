import { LockLost } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Scope } from "effect"
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
  settle,
  start
} from "./fixture.ts"

describe("a lease", () => {
  it.effect("knows its key, owner, backend and token, and its time", () =>
    scenario(function*() {
      const { backend, lock } = yield* fixture({ name: "somewhere" })
      const lease = yield* lock.acquire("k", { ttl: "10 seconds", renew: false })
      assert.strictEqual(lease.key, "k")
      assert.strictEqual(lease.owner, backend.requests[0]?.owner)
      assert.strictEqual(lease.backend, "somewhere")
      assert.strictEqual(lease.fencingToken, 1n)
      assert.isTrue(yield* lease.isHeld)
      assert.deepStrictEqual(yield* lease.remaining, Duration.millis(10_000 - 102), "the ttl less 1 % and 2 ms")
      yield* elapse(seconds(4))
      assert.deepStrictEqual(yield* lease.remaining, Duration.millis(6_000 - 102))
      yield* lease.release
      assert.isFalse(yield* lease.isHeld)
      assert.deepStrictEqual(yield* lease.remaining, Duration.zero)
      assertClean(backend)
    }))

  it.effect("renewed by hand has its whole ttl again, counted from the request", () =>
    scenario(function*({ backend, lock }) {
      const lease = yield* lock.acquire("k", { ttl: "10 seconds", renew: false })
      yield* elapse(seconds(9))
      yield* lease.renew
      assert.deepStrictEqual(yield* lease.remaining, Duration.millis(10_000 - 102))
      yield* elapse(seconds(5))
      backend.script("renew", { after: "1 second" })
      const renewing = yield* start(lease.renew)
      yield* elapse(seconds(1))
      assert.isTrue(Exit.isSuccess(ended(renewing, "answered")))
      assert.deepStrictEqual(yield* lease.remaining, Duration.millis(9_000 - 102), "the way back counts")
    }))

  it.effect("renewed by hand twice at once asks one after the other", () =>
    scenario(function*({ backend, lock }) {
      const lease = yield* lock.acquire("k", { ttl: "10 seconds", renew: false })
      yield* elapse(seconds(1))
      backend.script("renew", { after: "2 seconds" })
      const first = yield* start(lease.renew)
      yield* elapse(seconds(1))
      const second = yield* start(lease.renew)
      assert.strictEqual(backend.count("renew"), 1, "renewals of one request never overlap")
      yield* elapse(seconds(1))
      assert.isTrue(Exit.isSuccess(ended(first, "answered")) && Exit.isSuccess(ended(second, "answered")))
      assert.strictEqual(backend.count("renew"), 2, "each has asked for a fresh answer")
      assert.deepStrictEqual(yield* lease.remaining, Duration.millis(10_000 - 102))
    }))

  it.effect("renewing by hand tells the backend's error, and that it was lost", () =>
    scenario(function*({ backend, lock }) {
      const lease = yield* lock.acquire("k", { ttl: "10 seconds" })
      backend.script("renew", { fails: "Unreachable" })
      assertError(yield* Effect.flip(lease.renew), { _tag: "LockBackendError", reason: "Unreachable" })
      assert.isTrue(yield* lease.isHeld, "an error is not a loss")
      backend.rob("k")
      assertError(yield* Effect.flip(lease.renew), { _tag: "LockLost", reason: "taken" })
      assertError(yield* Effect.flip(lease.renew), { _tag: "LockLost", reason: "taken" }, "again")
    }))

  it.effect("with renew: false is never renewed by itself, also after a renewal by hand failed", () =>
    scenario(function*({ backend, lock }) {
      const lease = yield* lock.acquire("k", { ttl: "10 seconds", renew: false })
      backend.script("renew", { fails: "Unreachable" })
      yield* Effect.flip(lease.renew)
      yield* elapse(9_897)
      assert.strictEqual(backend.count("renew"), 1)
      assert.isTrue(yield* lease.isHeld)
      yield* elapse(1)
      assert.isFalse(yield* lease.isHeld, "it ended at its deadline")
    }))

  it.effect("lost fails as soon as the lease is lost, for all that asked and that ask later", () =>
    scenario(function*({ backend, lock }) {
      const lease = yield* lock.acquire("k")
      const watchers = yield* Effect.all([start(lease.lost), start(lease.lost), start(lease.lost)])
      yield* Fiber.interrupt(watchers[2])
      yield* elapse(seconds(100))
      assert.isTrue(isPending(watchers[0]), "a live lease is not lost")
      backend.requests[0]?.onLost("session")
      yield* settle
      for (const watcher of watchers.slice(0, 2)) {
        const error = errorOf(ended(watcher, "told"), "lost")
        assert.instanceOf(error, LockLost)
        assertError(error, { key: "k", owner: lease.owner, fencingToken: 1n, reason: "session" })
      }
      assertError(yield* Effect.flip(lease.lost), { reason: "session" })
      assert.isFalse(yield* lease.isHeld)
    }))

  it.effect("lost never completes after a release", () =>
    scenario(function*({ backend, lock }) {
      const lease = yield* lock.acquire("k")
      const before = yield* start(lease.lost)
      yield* lease.release
      const after = yield* start(lease.lost)
      backend.requests[0]?.onLost("session")
      yield* elapse(seconds(100))
      assert.isTrue(isPending(before) && isPending(after))
      assertClean(backend)
    }))

  it.effect("is released once, however often and by however many", () =>
    scenario(function*({ backend, lock }) {
      backend.always("release", { before: 20 })
      const scope = yield* Scope.make()
      const lease = yield* Scope.provide(lock.acquire("k"), scope)
      const releases = yield* Effect.all([start(lease.release), start(lease.release)])
      yield* elapse(20)
      for (const release of releases) assert.isTrue(Exit.isSuccess(ended(release, "both wait for the answer")))
      yield* lease.release
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(backend.count("release"), 1)
      assertClean(backend)
    }))

  it.effect("interrupting a release does not stop it", () =>
    scenario(function*({ backend, lock }) {
      backend.always("release", { before: 20 })
      const lease = yield* lock.acquire("k")
      const release = yield* start(lease.release)
      const interrupting = yield* start(Fiber.interrupt(release))
      assert.isTrue(isPending(interrupting))
      yield* elapse(20)
      assert.isFalse(isPending(interrupting))
      assertClean(backend)
    }))

  it.effect("tells the error of a release that fails, and releases in the background", () =>
    scenario(function*({ backend, lock }) {
      const lease = yield* lock.acquire("k")
      backend.always("release", { arrives: false, fails: "Unreachable" })
      const release = yield* start(lease.release)
      yield* elapse(seconds(1))
      const error = errorOf(ended(release, "answered within a second"), "not released")
      assertError(error, { _tag: "LockBackendError", operation: "release", reason: "Unreachable" })
      assert.isFalse(yield* lease.isHeld)
      backend.always("release", {})
      yield* elapse(seconds(1))
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(lease.release)), "now it is released")
      assertClean(backend)
    }))

  it.effect("a loss as JSON has the token as text", () =>
    scenario(function*({ backend, lock }) {
      const fiber = yield* start(lock.withLock("k", Effect.never, { owner: "me" }))
      backend.rob("k")
      yield* settle
      const error = errorOf(ended(fiber, "lost"), "lost")
      const json: unknown = JSON.parse(JSON.stringify(error))
      assertError(json, { _tag: "LockLost", key: "k", fencingToken: "1", reason: "taken" })
      assertError(json, { owner: backend.requests[0]?.owner })
    }))
})
