import { Lock, withLocks, withPermit } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import {
  assertClean,
  assertError,
  build,
  elapse,
  ended,
  errorOf,
  isPending,
  jumping,
  scenario,
  seconds,
  settle,
  start
} from "./fixture.ts"

const ttl = { ttl: "10 seconds" } as const
/** The last millisecond of a lease of 10 seconds: 1 % and 2 ms before its end. */
const deadline = 9_898

describe("the deadline", () => {
  it.effect.each(
    [
      ["are never answered", { after: "never" }],
      ["are lost on the way", { arrives: false, after: "never" }],
      ["fail", { arrives: false, fails: "Unreachable" }],
      ["fail slowly", { arrives: false, after: "2 seconds", fails: "Timeout" }],
      ["die", { dies: "defect", arrives: false }],
      ["throw", { throws: new Error("thrown") }]
    ] as const
  )("comes when it comes, and not later, though renewals %s", ([, step]) =>
    scenario(function*({ backend, lock }) {
      backend.always("renew", step)
      const interrupted: Array<string> = []
      const program = Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted.push("program")))
      const section = yield* start(lock.withLock("k", program, ttl))
      const lease = yield* lock.acquire("other", ttl)
      const lost = yield* start(lease.lost)
      yield* elapse(deadline - 1)
      assert.deepStrictEqual(interrupted, [], "an error is not a loss")
      assert.isTrue(isPending(section) && isPending(lost) && (yield* lease.isHeld), "an error is not a loss")
      yield* elapse(1)
      assert.deepStrictEqual(interrupted, ["program"])
      assertError(errorOf(ended(lost, "at the deadline"), "lost"), { _tag: "LockLost", reason: "expired" })
      assert.isFalse(yield* lease.isHeld)
      yield* elapse(seconds(1))
      assertError(errorOf(ended(section, "in a second"), "lost"), { _tag: "LockLost", reason: "expired" })
    }))

  it.effect("counts from the time before the request, by the backend's word", () =>
    scenario(function*({ backend, lock }) {
      backend.script("acquire", { after: "3 seconds" })
      const section = yield* start(lock.withLock("k", Effect.never, { ...ttl, renew: false }))
      yield* elapse(deadline - 1)
      assert.isTrue(isPending(section))
      yield* elapse(1)
      assertError(errorOf(ended(section, "at the deadline"), "lost"), { reason: "expired" })
    }))

  it.effect("moves with every answered renewal, and only with those", () =>
    scenario(function*({ backend, lock }) {
      const section = yield* start(lock.withLock("k", Effect.never, ttl))
      yield* elapse(seconds(60))
      const renewals = backend.log.filter(({ verb }) => verb === "renew")
      const last = renewals[renewals.length - 1]?.at ?? 0
      backend.always("renew", { arrives: false, after: "never" })
      yield* elapse(last + deadline - seconds(60) - 1)
      assert.isTrue(isPending(section))
      yield* elapse(seconds(1))
      assert.isTrue(isPending(section), "a renewal is in flight")
      yield* elapse(1)
      assertError(errorOf(ended(section, "at the deadline"), "lost"), { reason: "expired" })
    }))

  it.effect("a renewal that fails is tried again soon, ever less often, and saves the lease", () =>
    scenario(function*({ backend, lock }) {
      const section = yield* start(lock.withLock("k", Effect.never))
      backend.always("renew", { arrives: false, fails: "Unreachable" })
      yield* elapse(seconds(25))
      const at = backend.log.filter(({ verb }) => verb === "renew").map((asked) => asked.at)
      assert.isAtLeast(at.length, 6)
      assert.isAtMost(at.length, 12)
      const gaps = at.slice(1).map((t, i) => t - (at[i] ?? 0))
      assert.isAtMost(gaps[0] ?? Infinity, 200)
      assert.isTrue(gaps.every((gap, i) => i === 0 || gap >= (gaps[i - 1] ?? 0)), `backoff: ${gaps}`)
      backend.always("renew", {})
      yield* elapse(seconds(60))
      assert.isTrue(isPending(section))
    }))

  it.effect("a renewal that is answered with none is a loss at once", () =>
    scenario(function*({ backend, lock }) {
      const section = yield* start(lock.withLock("k", Effect.never, ttl))
      const lease = yield* lock.acquire("other", ttl)
      backend.forget("k")
      backend.forget("other")
      yield* elapse(seconds(3))
      assert.isTrue(isPending(section) && (yield* lease.isHeld), "the loss has not been told")
      yield* elapse(400)
      assertError(errorOf(ended(section, "told by the renewal"), "lost"), { _tag: "LockLost", reason: "taken" })
      assertError(yield* Effect.flip(lease.lost), { _tag: "LockLost", reason: "taken" })
      assert.strictEqual(backend.count("acquire"), 2, "nothing is taken again")
    }))

  it.effect("a loss that the backend pushes is a loss at once", () =>
    scenario(function*({ backend, lock }) {
      for (const reason of ["session", "taken", "expired"] as const) {
        const section = yield* start(lock.withLock("k", Effect.never))
        backend.requests[backend.requests.length - 1]?.onLost(reason)
        yield* settle
        assertError(errorOf(ended(section, "lost"), "lost"), { _tag: "LockLost", reason })
        assertClean(backend)
      }
    }))

  it.effect("a loss that is pushed before the grant is known, or after the release, harms no other lease", () =>
    scenario(function*({ backend, lock }) {
      backend.script("acquire", { after: 100 })
      const section = yield* start(lock.withLock("k", (lease) => Effect.succeed(lease.owner)))
      const [first] = backend.requests
      first?.onLost("session")
      first?.onLost("session")
      yield* elapse(100)
      const owner = ended(section, "asked again with a new owner")
      assert.deepStrictEqual(owner, Exit.succeed(backend.requests[1]?.owner ?? "nobody"))
      assert.strictEqual(backend.requests.length, 2)
      for (const request of backend.requests) request.onLost("taken")
      yield* settle
      assertClean(backend)
      const none = yield* start(lock.tryAcquire("k"))
      assert.isTrue(Exit.isSuccess(ended(none, "free")))
    }))

  it.effect("ends the program, whose finalizers run before the answer", () =>
    scenario(function*({ backend, lock }) {
      const events: Array<string> = []
      const program = Effect.onInterrupt(
        Effect.never,
        () => Effect.andThen(Effect.sleep(50), Effect.sync(() => events.push("finalized")))
      )
      const section = yield* start(
        Effect.onExit(lock.withLock("k", program), () => Effect.sync(() => events.push("answered")))
      )
      backend.rob("k")
      yield* elapse(49)
      assert.isTrue(isPending(section))
      yield* elapse(1)
      assertError(errorOf(ended(section, "finalized"), "lost"), { _tag: "LockLost" })
      assert.deepStrictEqual(events, ["finalized", "answered"])
    }))

  it.effect("a program that catches everything, or fails by itself while it is interrupted, cannot hide the loss", () =>
    scenario(function*({ backend, lock }) {
      const programs: ReadonlyArray<Effect.Effect<unknown, string>> = [
        Effect.catchCause(Effect.never, () => Effect.succeed("caught")),
        Effect.exit(Effect.never),
        Effect.uninterruptible(Effect.as(Effect.sleep(50), "slow")),
        Effect.onInterrupt(Effect.never, () => Effect.die("in the finalizer")),
        Effect.uninterruptible(Effect.andThen(Effect.sleep(50), Effect.fail("mine")))
      ]
      for (const program of programs) {
        const section = yield* start(lock.withLock("k", program))
        backend.rob("k")
        yield* elapse(50)
        const exit = ended(section, "lost")
        assertError(errorOf(exit, "lost"), { _tag: "LockLost" })
      }
      const exit = yield* start(lock.withLock("k", programs[3] ?? assert.fail()))
      backend.rob("k")
      yield* settle
      assert.isTrue(Exit.hasDies(ended(exit, "lost")), "a defect is not swallowed")
    }))

  it.effect("is read before the program begins: the process may have stood still since the grant", () =>
    jumping(function*({ backend, block, lock }) {
      const began: Array<string> = []
      const begin = (name: string) => Effect.sync(() => began.push(name))
      // The second part is granted at once when the process goes on, before any timer rings.
      const stranger = yield* build(backend, yield* Effect.scope)
      const over = yield* Deferred.make<void>()
      for (
        const [name, taken, wanted] of [
          ["two keys", stranger.withLock("b", Deferred.await(over)), withLocks(["a", "b"], begin("two keys"), ttl)],
          [
            "two permits",
            stranger.withLock("p#permit-1", Deferred.await(over)),
            withPermit("p", { limit: 2, permits: 2 }, begin("two permits"), ttl)
          ]
        ] as const
      ) {
        const other = yield* start(taken)
        const asking = yield* start(Effect.provideService(Effect.exit(wanted), Lock, lock))
        yield* elapse(1)
        yield* block(deadline)
        yield* Fiber.interrupt(other)
        yield* elapse(seconds(2))
        const exit = yield* ended(asking, name)
        assertError(errorOf(exit, name), { _tag: "LockLost", reason: "expired" }, name)
      }
      assert.deepStrictEqual(began, [])
    }))

  it.effect("is read once more when the program has ended: a blocked event loop cannot be interrupted", () =>
    jumping(function*({ backend, block, lock }) {
      const late = yield* Effect.exit(lock.withLock("k", Effect.as(block(deadline), "done"), ttl))
      assertError(errorOf(late, "late"), { _tag: "LockLost", reason: "expired" })
      const inTime = yield* lock.withLock("k", Effect.as(block(deadline - 1), "done"), ttl)
      assert.strictEqual(inTime, "done")
      const failed = yield* Effect.exit(lock.withLock("k", Effect.andThen(block(deadline), Effect.fail("mine")), ttl))
      assertError(errorOf(failed, "late"), { _tag: "LockLost" })
      const closing = Effect.addFinalizer(() => block(deadline))
      assertError(errorOf(yield* Effect.exit(lock.withLock("k", closing, ttl)), "late"), { _tag: "LockLost" })
      const none = yield* Effect.exit(lock.withLockIfAvailable("k", block(deadline), ttl))
      assertError(errorOf(none, "late"), { _tag: "LockLost" })
      assertClean(backend)
      const lease = yield* lock.acquire("k", ttl)
      yield* block(deadline)
      assert.isFalse(yield* lease.isHeld, "a lease knows it too")
      assertError(yield* Effect.flip(lease.lost), { reason: "expired" })
    }))

  it.effect("of maxHold comes in spite of renewals", () =>
    scenario(function*({ backend, lock }) {
      const section = yield* start(lock.withLock("k", Effect.never, { ...ttl, maxHold: "1 minute" }))
      yield* elapse(seconds(60) - 1)
      assert.isTrue(isPending(section))
      yield* elapse(1)
      assertError(errorOf(ended(section, "over"), "over"), { _tag: "LockLost", reason: "maxHold" })
      const short = yield* start(lock.withLock("k", Effect.never, { ...ttl, maxHold: "1 second" }))
      yield* elapse(seconds(1))
      assertError(errorOf(ended(short, "over"), "over"), { reason: "maxHold" })
      assertClean(backend)
    }))

  it.effect("is kept when time moves in large steps", () =>
    scenario(function*({ backend, lock }) {
      const section = yield* start(lock.withLock("k", Effect.as(Effect.sleep("1 hour"), 1)))
      yield* elapse(seconds(3600))
      assert.deepStrictEqual(ended(section, "held for an hour"), Exit.succeed(1))
      assertClean(backend)
    }))
})
