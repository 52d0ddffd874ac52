import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Option } from "effect"
import {
  assertClean,
  assertError,
  build,
  elapse,
  ended,
  errorOf,
  isPending,
  jumping,
  jumpingClock,
  type JumpingFixture,
  scenario,
  seconds,
  start
} from "./fixture.ts"

const ttl = { ttl: "9 seconds" } as const

describe("a grant that was long on its way", () => {
  it.effect("is believed when less than a third of the ttl is gone", () =>
    scenario(function*({ backend, lock }) {
      backend.script("acquire", { after: 2999 })
      yield* start(lock.withLock("k", Effect.never, ttl))
      yield* elapse(2999)
      assert.strictEqual(backend.count("renew"), 0)
    }))

  it.effect("is confirmed by a renewal first when a third is gone", () =>
    scenario(function*({ backend, lock }) {
      const runs: Array<number> = []
      backend.script("acquire", { after: 3000 })
      backend.script("tryAcquire", { after: 3000 })
      backend.always("renew", { before: 100, after: 100 })
      const section = yield* start(lock.withLock("k", Effect.sync(() => runs.push(1)), ttl))
      const lease = yield* start(lock.tryAcquire("other", ttl))
      yield* elapse(3000)
      assert.strictEqual(backend.count("renew"), 2)
      yield* elapse(199)
      assert.isTrue(isPending(section) && isPending(lease) && runs.length === 0, "nothing starts before the answer")
      yield* elapse(1)
      assert.isTrue(Exit.isSuccess(ended(section, "confirmed")))
      const held = Option.getOrElse(yield* Fiber.join(lease), () => assert.fail("it was confirmed"))
      assert.deepStrictEqual(yield* held.remaining, Duration.millis(9000 - 92 - 100), "counted from the renewal")
    }))

  it.effect("has the token of the confirmation", () =>
    scenario(function*({ backend }) {
      backend.script("acquire", { after: seconds(3) })
      const confirming = {
        ...backend,
        renew: (...args: Parameters<typeof backend.renew>) =>
          Effect.map(
            backend.renew(...args),
            Option.map((validity) => ({ ...validity, tokens: { first: 77n, spare: 0 } }))
          )
      }
      const other = yield* build(confirming, yield* Effect.scope)
      const token = yield* start(other.withLock("k", (lease) => Effect.succeed(lease.fencingToken), ttl))
      yield* elapse(seconds(3))
      assert.deepStrictEqual(ended(token, "confirmed"), Exit.succeed(77n))
    }))

  it.effect("and that the backend no longer knows is not believed, though its time is not over", () =>
    scenario(function*({ backend, lock }) {
      backend.script("acquire", { after: seconds(3) })
      backend.script("tryAcquire", { after: seconds(3) })
      const section = yield* start(lock.withLock("k", (lease) => Effect.succeed(lease.owner), ttl))
      const lease = yield* start(Effect.scoped(lock.tryAcquire("other", ttl)))
      backend.forget("k")
      backend.forget("other")
      yield* elapse(seconds(3))
      const [first, , second] = backend.requests
      assert.deepStrictEqual(ended(section, "asked again"), Exit.succeed(second?.owner ?? "nobody"))
      assert.notStrictEqual(first?.owner, second?.owner)
      assert.deepStrictEqual(ended(lease, "answered"), Exit.succeed(Option.none()))
      assertClean(backend)
    }))

  it.effect("whose time is over means: still waiting, with a new owner", () =>
    scenario(function*({ backend, lock }) {
      backend.script("acquire", { after: seconds(10) })
      const section = yield* start(lock.withLock("k", (lease) => Effect.succeed(lease.fencingToken), ttl))
      yield* elapse(seconds(10))
      assert.deepStrictEqual(ended(section, "the second attempt"), Exit.succeed(2n))
      assert.strictEqual(new Set(backend.requests.map(({ owner }) => owner)).size, 2)
      assertClean(backend)
    }))

  it.effect("whose time is over is none for an attempt that does not wait", () =>
    scenario(function*({ backend, lock }) {
      backend.script("tryAcquire", { after: seconds(10) })
      const section = yield* start(lock.withLockIfAvailable("k", Effect.die("run"), ttl))
      yield* elapse(seconds(10))
      assert.deepStrictEqual(ended(section, "too late"), Exit.succeed(Option.none()))
      assertClean(backend)
    }))

  it.effect("keeps its place in the local line while it waits again, until its timeout", () =>
    scenario(function*({ backend, lock }) {
      const order: Array<number> = []
      backend.script("acquire", { after: seconds(10) }, { after: seconds(10) }, { after: seconds(1) })
      const work = (i: number) => lock.withLock("k", Effect.sync(() => order.push(i)), ttl)
      yield* start(work(1))
      yield* start(work(2))
      const third = yield* start(lock.withLock("k", Effect.void, { ...ttl, timeout: "15 seconds" }))
      yield* elapse(seconds(15))
      assertError(errorOf(ended(third, "in time"), "timeout"), { reason: "timeout" })
      yield* elapse(seconds(6))
      assert.deepStrictEqual(order, [1, 2])
      assertClean(backend)
    }))

  it.effect("whose confirmation fails is released, and fails those behind", () =>
    scenario(function*({ backend, lock }) {
      backend.script("acquire", { after: seconds(3) })
      backend.script("renew", { fails: "Unreachable" })
      const sections = yield* Effect.forEach([1, 2], () => start(lock.withLock("k", Effect.die("run"), ttl)))
      yield* elapse(seconds(3))
      for (const section of sections) {
        assertError(errorOf(ended(section, "failed"), "failed"), { _tag: "LockBackendError", reason: "Unreachable" })
      }
      assertClean(backend)
    }))

  it.effect("whose confirmation hangs ends with the timeout or an interruption", () =>
    scenario(function*({ backend, lock }) {
      backend.always("acquire", { after: seconds(3) })
      backend.always("renew", { after: "never" })
      const timed = yield* start(lock.withLock("k", Effect.die("run"), { ...ttl, timeout: "5 seconds" }))
      const other = yield* start(Effect.scoped(lock.acquire("other", ttl)))
      yield* elapse(seconds(5))
      assertError(errorOf(ended(timed, "in time"), "timeout"), { reason: "timeout" })
      yield* Fiber.interrupt(other)
      assertClean(backend)
    }))

  it.effect("is asked for after a pause when several in a row were too late, also by a new caller", () =>
    scenario(function*({ backend, lock }) {
      backend.script("acquire", ...Array.from({ length: 3 }, () => ({ after: seconds(10) })))
      yield* start(lock.withLock("k", Effect.void, ttl))
      yield* elapse(seconds(30))
      assert.strictEqual(backend.count("acquire"), 3)
      const newcomer = yield* start(lock.withLock("k", Effect.void, ttl))
      assert.strictEqual(backend.count("acquire"), 3, "the pause is not over")
      yield* elapse(seconds(5))
      assert.isTrue(Exit.isSuccess(ended(newcomer, "served after the pause")))
      assertClean(backend)
    }))

  it.effect("late out of a dead network never starts a section, however often", () =>
    scenario(function*({ backend, lock }) {
      backend.always("acquire", { after: seconds(20) })
      const section = yield* start(lock.withLock("k", Effect.die("run"), { ...ttl, timeout: "2 minutes" }))
      yield* elapse(seconds(120))
      assertError(errorOf(ended(section, "in time"), "timeout"), { reason: "timeout" })
      yield* elapse(seconds(60))
      assertClean(backend)
    }))
})

describe("a machine that slept", () => {
  it.effect("asks whether its leases outlived that, and goes on when they did", () =>
    jumping(function*({ backend, lock, sleep }) {
      const section = yield* start(lock.withLock("k", Effect.never))
      const lease = yield* lock.acquire("other", { renew: false })
      backend.always("renew", { after: 10 })
      yield* sleep(5000)
      assert.isFalse(yield* lease.isHeld, "it is not known")
      yield* elapse(seconds(1))
      assert.strictEqual(backend.count("renew"), 2, "noticed within a second")
      assert.isTrue(yield* lease.isHeld, "now it is known")
      assert.isTrue(isPending(section))
      yield* elapse(seconds(5))
      assert.strictEqual(backend.count("renew"), 2, "asked once")
    }))

  it.effect("has lost what the backend says it has lost", () =>
    jumping(function*({ backend, lock, sleep }) {
      const section = yield* start(lock.withLock("k", Effect.never))
      yield* sleep(60_000)
      backend.forget("k")
      yield* elapse(seconds(1))
      assertError(errorOf(ended(section, "asked"), "lost"), { _tag: "LockLost", reason: "taken" })
    }))

  it.effect("and a program that ended before anybody noticed: its lease is confirmed first", () =>
    jumping(function*({ backend, lock, sleep }) {
      assert.strictEqual(yield* lock.withLock("k", Effect.as(sleep(5000), 1)), 1, "it outlived that")
      assert.strictEqual(backend.count("renew"), 1)
      const slept = Effect.andThen(sleep(60_000), Effect.sync(() => backend.forget("k")))
      const lost = yield* Effect.exit(lock.withLock("k", slept))
      assertError(errorOf(lost, "gone"), { _tag: "LockLost", reason: "taken" })
      backend.script("renew", { fails: "Unreachable" })
      const retried = yield* start(lock.withLock("k", Effect.as(sleep(60_000), 1)))
      assert.isTrue(isPending(retried), "it is not known yet")
      yield* elapse(100)
      assert.deepStrictEqual(ended(retried, "confirmed at the second attempt"), Exit.succeed(1))
      for (const step of [{ fails: "Unreachable" }, { dies: "defect" }, { after: "never" }] as const) {
        backend.always("renew", step)
        const unknown = yield* start(lock.withLock("k", sleep(60_000)))
        yield* elapse(seconds(1) - 1)
        assert.isTrue(isPending(unknown), "it is not known yet")
        yield* elapse(1)
        // A renewal in flight is answered first.
        yield* elapse(seconds(5))
        assertError(errorOf(ended(unknown, "a second after it is noticed"), "not known"), {
          _tag: "LockLost",
          reason: "expired"
        })
      }
      yield* elapse(seconds(5))
      assertClean(backend)
    }))

  it.effect("while it waited for its grant confirms it", () =>
    jumping(function*({ backend, lock, sleep }) {
      backend.script("acquire", { after: 500 })
      const section = yield* start(lock.withLock("k", Effect.succeed(1)))
      yield* sleep(5000)
      yield* elapse(500)
      assert.deepStrictEqual(ended(section, "confirmed"), Exit.succeed(1))
      assert.deepStrictEqual(backend.log.map(({ verb }) => verb), ["acquire", "renew", "release"])
    }))

  it.effect("while it confirmed confirms again", () =>
    jumping(function*({ backend, lock, sleep }) {
      backend.script("acquire", { after: 500 })
      backend.script("renew", { after: 500 })
      const section = yield* start(lock.withLock("k", Effect.sync(() => backend.count("renew"))))
      yield* sleep(5000)
      yield* elapse(500)
      yield* sleep(5000)
      yield* elapse(600)
      assert.deepStrictEqual(ended(section, "confirmed"), Exit.succeed(2))
      assert.deepStrictEqual(backend.log.map(({ verb }) => verb), ["acquire", "renew", "renew", "release"])
    }))

  it.effect.each(
    [
      ["hang", { arrives: false, after: "never" }],
      ["fail", { arrives: false, fails: "Unreachable" }],
      ["fail slowly", { arrives: false, after: "5 seconds", fails: "Timeout" }],
      ["die", { arrives: false, dies: "defect" }]
    ] as const
  )(
    "for longer than the ttl has lost its leases a second after it is noticed, though its renewals %s",
    ([, step]) =>
      jumping(function*({ backend, lock, sleep }) {
        const interrupted: Array<string> = []
        const program = Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted.push("program")))
        const section = yield* start(lock.withLock("k", program))
        const lease = yield* lock.acquire("other", { renew: false })
        backend.always("renew", step)
        yield* sleep(60_000)
        yield* elapse(seconds(2) - 1)
        assert.deepStrictEqual(interrupted, [], "somebody may have set the clock")
        assert.deepStrictEqual(yield* lease.remaining, Duration.zero, "it is not known")
        yield* elapse(1)
        assert.deepStrictEqual(interrupted, ["program"])
        yield* elapse(seconds(1))
        assertError(errorOf(ended(section, "in a second"), "lost"), { _tag: "LockLost", reason: "expired" })
        assertError(yield* Effect.flip(lease.lost), { _tag: "LockLost", reason: "expired" })
      })
  )

  it.effect("for less than was left has so much less left", () =>
    jumping(function*({ backend, lock, sleep }) {
      const section = yield* start(lock.withLock("k", Effect.never, { ttl: "30 seconds" }))
      backend.always("renew", { arrives: false, fails: "Unreachable" })
      yield* sleep(20_000)
      yield* elapse(29_698 - 20_000 - 1)
      assert.isTrue(isPending(section))
      yield* elapse(1)
      assertError(errorOf(ended(section, "by wall time"), "lost"), { reason: "expired" })
    }))

  it.effect("and a clock that was set forward by more than the ttl, lose nothing that is confirmed", () =>
    jumping(function*({ backend, lock, sleep }) {
      const section = yield* start(lock.withLock("k", Effect.never))
      const lease = yield* lock.acquire("other", { renew: false })
      backend.script("renew", { fails: "Unreachable" }, { fails: "Unreachable" }, { after: 500 }, { after: 500 })
      yield* sleep(600_000)
      yield* elapse(seconds(2))
      assert.isTrue(isPending(section), "confirmed at the second attempt")
      assert.deepStrictEqual(yield* lease.remaining, Duration.millis(29_698 - 900))
      yield* elapse(seconds(120))
      assert.isTrue(isPending(section))
      assertError(yield* Effect.flip(lease.lost), { reason: "expired" })
    }))

  it.effect("while it renewed asks again: that answer is from before", () =>
    jumping(function*({ backend, lock, sleep }) {
      const section = yield* start(lock.withLock("k", Effect.never))
      backend.script("renew", { after: 1500 })
      yield* elapse(seconds(10))
      assert.strictEqual(backend.count("renew"), 1, "the renewal of its time")
      yield* sleep(60_000)
      yield* elapse(1499)
      assert.strictEqual(backend.count("renew"), 1, "it was noticed, and one renewal is in flight")
      backend.forget("k")
      yield* elapse(101)
      assert.strictEqual(backend.count("renew"), 2)
      assertError(errorOf(ended(section, "asked again"), "lost"), { reason: "taken" })
    }))

  describe("over a backend that refreshes one session for many leases", () => {
    /** Every answer is as old as the latest refresh. */
    const overSession = Effect.fnUntraced(function*({ backend, live }: Pick<JumpingFixture, "backend" | "live">) {
      const now = Effect.map(Clock.Clock, (clock) => Number(clock.monotonicTimeNanosUnsafe()) / 1e6)
      let validFrom = yield* now
      const lock = yield* build({
        ...backend,
        renew: (request, renewal) =>
          Effect.map(backend.renew(request, renewal), Option.map(({ ttl }) => ({ ttl, validFrom })))
      }, yield* Effect.scope).pipe(Effect.provideService(Clock.Clock, live))
      return { lock, refresh: Effect.map(now, (time) => validFrom = time) }
    })

    it.effect("is not confirmed by what was answered before", () =>
      jumping(function*({ backend, live, sleep }) {
        const { lock } = yield* overSession({ backend, live })
        const section = yield* start(lock.withLock("k", Effect.never))
        yield* sleep(60_000)
        yield* elapse(seconds(2) - 1)
        assert.isTrue(isPending(section), "somebody may have set the clock")
        yield* elapse(1)
        assertError(errorOf(ended(section, "not confirmed"), "lost"), { reason: "expired" })
        assertClean(backend)
      }))

    it.effect("goes on when the session has been refreshed since", () =>
      jumping(function*({ backend, live, sleep }) {
        const { lock, refresh } = yield* overSession({ backend, live })
        const section = yield* start(lock.withLock("k", Effect.never))
        const lease = yield* lock.acquire("other")
        yield* sleep(60_000)
        yield* elapse(1500)
        assert.isFalse(yield* lease.isHeld)
        yield* refresh
        yield* elapse(101)
        assert.isTrue(yield* lease.isHeld)
        yield* elapse(seconds(5))
        assert.isTrue(isPending(section))
      }))

    it.effect("a section that has ended, and a grant that has arrived, wait for the refresh", () =>
      jumping(function*({ backend, live, sleep }) {
        const { lock, refresh } = yield* overSession({ backend, live })
        const ending = yield* start(lock.withLock("k", Effect.andThen(Effect.sleep(10), Effect.as(sleep(5000), 1))))
        yield* elapse(10)
        backend.script("acquire", { after: 500 })
        const arriving = yield* start(lock.withLock("other", Effect.succeed(2)))
        yield* sleep(5000)
        yield* elapse(5000)
        assert.isTrue(isPending(ending) && isPending(arriving), "not confirmed yet")
        yield* refresh
        yield* elapse(100)
        assert.deepStrictEqual(ended(ending, "confirmed"), Exit.succeed(1))
        assert.deepStrictEqual(ended(arriving, "confirmed"), Exit.succeed(2))
        assertClean(backend)
      }))
  })

  it.effect("and a clock set back, or forward by little, is no sleep", () =>
    jumping(function*({ backend, lock, sleep }) {
      const section = yield* start(lock.withLock("k", Effect.never))
      yield* sleep(-60_000)
      yield* elapse(seconds(2))
      yield* sleep(300)
      yield* elapse(seconds(2))
      assert.strictEqual(backend.count("renew"), 0)
      assert.isTrue(isPending(section))
    }))
})

describe("a caller with a clock of its own", () => {
  it.effect("changes nothing: the time of a lease is the time of the layer", () =>
    scenario(function*({ backend, lock }) {
      const { block, clock } = yield* jumpingClock
      yield* block(1_000_000)
      const section = yield* start(
        Effect.provideService(lock.withLock("k", Effect.never, ttl), Clock.Clock, clock)
      )
      yield* elapse(seconds(60))
      assert.isTrue(isPending(section))
      backend.always("renew", { arrives: false, after: "never" })
      yield* elapse(seconds(11))
      assertError(errorOf(ended(section, "at the deadline"), "lost"), { _tag: "LockLost" })
    }))
})
