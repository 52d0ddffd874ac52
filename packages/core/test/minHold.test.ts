import { type Lock, LockConfig } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Schedule, Scope } from "effect"
import {
  assertClean,
  assertError,
  build,
  elapse,
  ended,
  errorOf,
  fixture,
  isPending,
  jumping,
  scenario,
  seconds,
  settle,
  start
} from "./fixture.ts"
import type { ScriptedBackend } from "./ScriptedBackend.ts"

const minHold = { minHold: seconds(10) } as const

/** Another process. */
const neighbour = (backend: ScriptedBackend) => Effect.flatMap(Effect.scope, (scope) => build(backend, scope))

const isFree = (lock: Lock["Service"], key = "k") =>
  Effect.map(lock.withLockIfAvailable(key, Effect.void), Option.isSome)

type Form = (lock: Lock["Service"], options: Lock.TryOptions) => Effect.Effect<unknown, unknown>

const forms: ReadonlyArray<readonly [name: string, form: Form]> = [
  ["withLock", (lock, options) => lock.withLock("k", Effect.void, options)],
  ["withLockIfAvailable", (lock, options) => lock.withLockIfAvailable("k", Effect.void, options)],
  ["acquire", (lock, options) => Effect.scoped(lock.acquire("k", options))],
  ["tryAcquire", (lock, options) => Effect.scoped(lock.tryAcquire("k", options))],
  [
    "withLock on a schedule",
    (lock, options) => lock.withLock("k", Effect.void, { ...options, retry: Schedule.spaced(1) })
  ]
]

const exits: ReadonlyArray<readonly [name: string, program: Effect.Effect<void, string>]> = [
  ["a success", Effect.void],
  ["an error", Effect.fail("no")],
  ["a defect", Effect.die("oh")],
  ["an interruption of its own", Effect.interrupt]
]

describe("minHold keeps the key", () => {
  it.effect.each(forms)(
    "after %s, and the caller does not wait for it",
    ([_, form]) =>
      scenario(function*({ backend, lock }) {
        const stranger = yield* neighbour(backend)
        const fiber = yield* start(form(lock, minHold))
        assert.isTrue(Exit.isSuccess(ended(fiber, "at once")))
        yield* elapse(seconds(10) - 1)
        assert.isFalse(yield* isFree(lock), "for this process")
        assert.isFalse(yield* isFree(stranger), "for another process")
        yield* elapse(1)
        assert.isTrue(yield* isFree(stranger))
        assert.isTrue(yield* isFree(lock))
        assertClean(backend)
      })
  )

  it.effect.each(exits)("after %s", ([_, program]) =>
    scenario(function*({ backend, lock }) {
      yield* Effect.exit(lock.withLock("k", program, minHold))
      yield* elapse(seconds(10) - 1)
      assert.isFalse(yield* isFree(lock))
      yield* elapse(1)
      assert.isTrue(yield* isFree(lock))
      assertClean(backend)
    }))

  it.effect("after the caller was interrupted, in the section", () =>
    scenario(function*({ backend, lock }) {
      yield* Fiber.interrupt(yield* start(lock.withLock("k", Effect.never, minHold)))
      yield* elapse(seconds(10) - 1)
      assert.isFalse(yield* isFree(lock))
      yield* elapse(1)
      assert.isTrue(yield* isFree(lock))
      assertClean(backend)
    }))

  it.effect("not when the caller was interrupted in line: there was no lease", () =>
    scenario(function*({ backend, lock }) {
      const holder = yield* start(lock.withLock("k", Effect.never))
      yield* Fiber.interrupt(yield* start(lock.withLock("k", Effect.never, minHold)))
      yield* Fiber.interrupt(holder)
      assert.isTrue(yield* isFree(lock))
      assertClean(backend)
    }))

  it.effect("from the start of the lease: a longer section adds nothing", () =>
    scenario(function*({ backend, lock }) {
      const fiber = yield* start(lock.withLock("k", Effect.sleep(seconds(12)), minHold))
      yield* elapse(seconds(12))
      assert.isTrue(Exit.isSuccess(ended(fiber, "its end")))
      assertClean(backend)
      yield* start(lock.withLock("k", Effect.sleep(seconds(7)), minHold))
      yield* elapse(seconds(10) - 1)
      assert.isFalse(yield* isFree(lock))
      yield* elapse(1)
      assert.isTrue(yield* isFree(lock))
    }))

  it.effect("from the start of each lease, not of the hold that it was passed on with", () =>
    scenario(function*({ backend, lock }) {
      const sections = [1, 2].map(() => lock.withLock("k", Effect.sleep(5), { minHold: 5 }))
      yield* start(Effect.all(sections, { concurrency: "unbounded" }))
      yield* elapse(5)
      const last = yield* start(lock.withLock("k", Effect.void, minHold))
      yield* elapse(5)
      assert.isTrue(Exit.isSuccess(ended(last, "its turn")))
      yield* elapse(seconds(10) - 1)
      assert.isFalse(yield* isFree(lock))
      yield* elapse(1)
      assertClean(backend)
    }))

  it.effect("beyond its ttl: the watchdog renews it", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* neighbour(backend)
      yield* lock.withLock("k", Effect.void, { ttl: seconds(3), minHold: seconds(60) })
      for (let i = 0; i < 59; i++) {
        yield* elapse(seconds(1))
        assert.isFalse(yield* isFree(stranger), `after ${i + 1} seconds`)
      }
      yield* elapse(seconds(1))
      assert.isTrue(yield* isFree(stranger))
      assertClean(backend)
    }))

  it.effect("which is only logged when it fails: the section has had its success", () =>
    scenario(function*({ backend, lock }) {
      yield* lock.withLock("k", Effect.void, { ttl: seconds(3), minHold: seconds(60) })
      backend.rob("k")
      yield* settle
      assert.isTrue(yield* isFree(lock), "the key is not kept when it is lost")
      yield* lock.withLock("k", Effect.void, { ttl: seconds(3), minHold: seconds(60) })
      backend.always("renew", { fails: "Unreachable", arrives: false })
      yield* elapse(seconds(4))
      assert.isTrue(yield* isFree(lock), "nor when it cannot be renewed")
      assertClean(backend)
    }))

  it.effect("to the end of the ttl where it is not renewed", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* neighbour(backend)
      const options = { ttl: seconds(10), renew: false, minHold: seconds(10) } as const
      yield* lock.withLock("k", Effect.void, options)
      yield* elapse(seconds(10) - 1)
      assert.isFalse(yield* isFree(stranger), "the deadline, which is earlier, releases nothing")
      assert.isFalse(yield* isFree(lock))
      yield* elapse(1)
      assert.isTrue(yield* isFree(stranger))
      assert.isTrue(yield* isFree(lock))
      assert.strictEqual(backend.count("renew"), 0)
      assertClean(backend)
    }))
})

describe("while minHold keeps the key", () => {
  it.effect("waiters in this process and in others wait on, in order", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* neighbour(backend)
      const order: Array<string> = []
      yield* lock.withLock("k", Effect.void, minHold)
      yield* start(stranger.withLock("k", Effect.sync(() => order.push("stranger"))))
      yield* start(lock.withLock("k", Effect.sync(() => order.push("local"))))
      yield* elapse(seconds(10) - 1)
      assert.deepStrictEqual(order, [])
      yield* elapse(1)
      assert.deepStrictEqual(order, ["stranger", "local"])
      assertClean(backend)
    }))

  it.effect("a wait ends at its timeout", () =>
    scenario(function*({ backend, lock }) {
      yield* lock.withLock("k", Effect.void, minHold)
      const fiber = yield* start(lock.withLock("k", Effect.void, { timeout: seconds(1) }))
      yield* elapse(seconds(1))
      assertError(errorOf(ended(fiber, "in time"), "timeout"), { _tag: "LockUnavailable", reason: "timeout" })
      yield* elapse(seconds(9))
      assertClean(backend)
    }))

  it.effect("it does not linger: that begins when it has passed", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* neighbour(backend)
      yield* lock.withLock("k", Effect.void, { minHold: seconds(10), linger: seconds(5) })
      yield* elapse(seconds(3))
      assert.isFalse(yield* isFree(lock), "also for this process")
      const waiting = yield* start(stranger.withLock("k", Effect.void))
      yield* elapse(seconds(6))
      assert.isTrue(isPending(waiting), "another that waits does not end it")
      yield* elapse(seconds(1))
      assert.isTrue(Exit.isSuccess(ended(waiting, "another that waits ends the lingering at once")))
      assertClean(backend)
    }))

  it.effect("an explicit release waives it", () =>
    scenario(function*({ backend, lock }) {
      yield* lock.withLock("k", (lease) => lease.release, minHold)
      assertClean(backend)
      yield* Effect.scoped(Effect.flatMap(lock.acquire("k", minHold), (lease) => lease.release))
      assertClean(backend)
    }))

  it.effect("it is no lease that is held, and no alarm is left when it is over", () =>
    scenario(function*({ backend, lock }) {
      const lease = yield* Effect.scoped(lock.acquire("k", minHold))
      assert.isFalse(yield* lease.isHeld)
      yield* elapse(seconds(10))
      assertClean(backend)
    }))

  it.effect("a loss ends it: the key is not asked for again", () =>
    scenario(function*({ backend, lock }) {
      const fiber = yield* start(lock.withLock("k", Effect.never, minHold))
      backend.rob("k")
      yield* settle
      assertError(errorOf(ended(fiber, "lost"), "loss"), { _tag: "LockLost", reason: "taken" })
      assertClean(backend)
    }))

  it.effect("a machine that slept does not end it early", () =>
    jumping(function*({ backend, lock, sleep }) {
      yield* lock.withLock("k", Effect.void, minHold)
      yield* sleep(seconds(5))
      yield* elapse(seconds(10) - 1)
      assert.isFalse(yield* isFree(lock))
      yield* elapse(1)
      assert.isTrue(yield* isFree(lock))
      assertClean(backend)
    }))

  it.effect("the end of the layer makes the lease last, and releases nothing", () =>
    scenario(function*({ backend, close, lock }) {
      const stranger = yield* neighbour(backend)
      yield* lock.withLock("k", Effect.void, { ttl: seconds(3), minHold: seconds(60) })
      yield* elapse(seconds(2))
      yield* close
      assert.strictEqual(backend.count("release"), 0)
      yield* elapse(seconds(58) - 1)
      assert.isFalse(yield* isFree(stranger))
      yield* elapse(2)
      assert.isTrue(yield* isFree(stranger))
      assertClean(backend)
    }))

  it.effect("also behind a renewal that is under way", () =>
    scenario(function*({ backend, close, lock }) {
      yield* lock.withLock("k", Effect.void, { ttl: seconds(3), minHold: seconds(60) })
      backend.script("renew", { before: 200, after: 200 }, { before: 200, after: 200 })
      yield* elapse(seconds(1))
      const closing = yield* start(close)
      yield* elapse(300)
      assert.strictEqual(backend.count("renew"), 1, "renewals of one request never overlap")
      yield* elapse(500)
      assert.isFalse(isPending(closing))
      assert.strictEqual(backend.count("renew"), 2)
    }))

  it.effect("also when the section ends because the layer does", () =>
    scenario(function*({ backend, close, lock }) {
      const stranger = yield* neighbour(backend)
      const fiber = yield* start(lock.withLock("k", Effect.never, minHold))
      yield* close
      assertError(errorOf(ended(fiber, "closed"), "closed"), { _tag: "LockLost", reason: "closed" })
      yield* elapse(seconds(10) - 1)
      assert.isFalse(yield* isFree(stranger), "whatever the exit")
    }))

  it.effect("where a session carries the lease, the end of the layer frees the key", () =>
    scenario(function*() {
      const { backend, close, lock } = yield* fixture({ freedBy: "session" })
      yield* lock.withLock("k", Effect.void, minHold)
      yield* close
      assertClean(backend)
    }))

  it.effect("a lease that has lasted long enough by itself is left alone by the end of the layer", () =>
    scenario(function*({ backend, close, lock }) {
      yield* lock.withLock("k", Effect.void, { ttl: seconds(30), minHold: seconds(10) })
      yield* close
      assert.deepStrictEqual([backend.count("renew"), backend.count("release")], [0, 0])
    }))
})

describe("minHold", () => {
  it.effect("can be configured for every lock, and is waived by zero", () =>
    scenario(function*({ backend }) {
      const scope = yield* Scope.fork(yield* Effect.scope)
      const lock = yield* Effect.provideService(build(backend, scope), LockConfig.LockDefaults, minHold)
      yield* lock.withLock("k", Effect.void, { minHold: 0 })
      assertClean(backend)
      yield* lock.withLock("k", Effect.void)
      assert.isFalse(yield* isFree(lock))
    }))

  it.effect("that cannot be kept is refused", () =>
    scenario(function*({ backend, lock }) {
      const refused = (options: Lock.Options) => Effect.flip(lock.withLock("k", Effect.void, options))
      for (
        const options of [
          { minHold: -1 },
          { minHold: Number.NaN },
          { minHold: "Infinity" },
          { minHold: 20, maxHold: 10 },
          { minHold: seconds(31), renew: false }
        ] as const
      ) assertError(yield* refused(options), { _tag: "InvalidLockRequest" }, JSON.stringify(options))
      assert.strictEqual(backend.log.length, 0)
    }))

  it.effect("one of several processes runs a job of a schedule once per tick", () =>
    scenario(function*({ backend }) {
      const processes = yield* Effect.all(
        [0, 30, 80].map((behind) => Effect.map(neighbour(backend), (lock) => ({ behind, lock })))
      )
      let runs = 0
      const job = Effect.andThen(Effect.sleep(5), Effect.sync(() => runs++))
      for (let tick = 1; tick <= 100; tick++) {
        yield* Effect.all(
          processes.map(({ behind, lock }) =>
            start(Effect.delay(lock.withLockIfAvailable("job", job, { minHold: seconds(1) }), behind))
          )
        )
        for (let i = 0; i < 10; i++) yield* elapse(10)
        yield* elapse(seconds(60) - 100)
        assert.strictEqual(runs, tick)
      }
    }))
})
