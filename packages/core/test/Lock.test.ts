import { acquire, Lock, tryAcquire, withLock, withLockIfAvailable } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Schedule, Scope } from "effect"
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

describe("LockUnavailable", () => {
  it.effect("names the holder where the answer tells it, in this process and in another, with no request more", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* build(backend, yield* Effect.scope)
      yield* start(lock.withLock("k", Effect.never, { owner: "the one" }))
      for (const by of [lock, other]) {
        const before = backend.log.length
        const error = yield* Effect.flip(by.withLock("k", Effect.void, { timeout: 0 }))
        assertError(error, {
          reason: "held",
          holder: "the one",
          message: "Lock \"k\" is unavailable: another owner holds it (by the one)"
        })
        assert.isAtMost(backend.log.length - before, 1)
        const waiter = yield* start(by.withLock("k", Effect.void, { timeout: seconds(1) }))
        yield* elapse(seconds(1))
        assertError(errorOf(ended(waiter, "in time"), "timeout"), { reason: "timeout", holder: "the one" })
      }
    }))

  it.effect("does not name a holder that has gone, or itself", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* build(backend, yield* Effect.scope)
      const holder = yield* start(other.withLock("k", Effect.never, { owner: "the one" }))
      const next = yield* start(lock.withLock("k", Effect.never, { owner: "the next" }))
      yield* Fiber.interrupt(holder)
      yield* settle
      assert.isTrue(isPending(next))
      for (const by of [lock, other]) {
        const error = yield* Effect.flip(by.withLock("k", Effect.void, { timeout: 0 }))
        assertError(error, { reason: "held", holder: "the next" })
      }
    }))
})

describe("withLock", () => {
  it.effect("data-first and data-last, with an effect and with a function of the lease", () =>
    scenario(function*({ backend, lock }) {
      const results = yield* Effect.all([
        withLock("k", Effect.succeed(1)),
        withLock("k", (lease) => Effect.succeed(lease.fencingToken)),
        Effect.succeed(3).pipe(withLock("k")),
        withLock("k", { ttl: "5 seconds" })((lease) => Effect.succeed(lease.fencingToken)),
        withLock("k", Effect.succeed(5), { ttl: "5 seconds" })
      ]).pipe(Effect.provideService(Lock, lock))
      assert.deepStrictEqual(results, [1, 2n, 3, 4n, 5])
      assert.strictEqual(backend.log.length, 10, "one request to take and one to release")
      assertClean(backend)
    }))

  it.effect("takes the key, runs the program, closes what it opened, and only then gives the key back", () =>
    scenario(function*({ backend, lock }) {
      const events: Array<string> = []
      backend.always("release", { onServed: () => events.push("released") })
      yield* lock.withLock(
        "k",
        Effect.gen(function*() {
          yield* Effect.addFinalizer(() =>
            Effect.andThen(Effect.sleep(5), Effect.sync(() => events.push(`closed, held: ${backend.count("release")}`)))
          )
          events.push("program")
        })
      ).pipe(start, Effect.tap(elapse(5)), Effect.flatMap(Fiber.join))
      assert.deepStrictEqual(events, ["program", "closed, held: 0", "released"])
    }))

  it.effect("releases whatever becomes of the program", () =>
    scenario(function*({ backend, lock }) {
      const failed = yield* Effect.exit(lock.withLock("k", Effect.fail("no")))
      assert.deepStrictEqual(failed, Exit.fail("no"), "the program's own error")
      const died = yield* Effect.exit(lock.withLock("k", Effect.die("oh")))
      assert.deepStrictEqual(died, Exit.die("oh"), "the program's own defect")
      const threw = yield* Effect.exit(lock.withLock("k", (): Effect.Effect<never> => {
        throw new Error("thrown")
      }))
      assert.isTrue(Exit.hasDies(threw), "a function that throws is a defect")
      const interrupted = yield* Effect.exit(lock.withLock("k", Effect.interrupt))
      assert.isTrue(Exit.hasInterrupts(interrupted), "a program that interrupts itself")
      assertClean(backend)
    }))

  it.effect("interrupting the caller interrupts the program, waits for its finalizers, and releases", () =>
    scenario(function*({ backend, lock }) {
      const events: Array<string> = []
      backend.always("release", { onServed: () => events.push("released") })
      const finalizer = Effect.andThen(Effect.sleep(10), Effect.sync(() => events.push("finalized")))
      const fiber = yield* start(lock.withLock("k", Effect.onInterrupt(Effect.never, () => finalizer)))
      const interrupting = yield* start(Fiber.interrupt(fiber))
      assert.isTrue(isPending(interrupting), "the interruption waits for the finalizers")
      yield* elapse(10)
      assert.isFalse(isPending(interrupting))
      assert.deepStrictEqual(events, ["finalized", "released"])
      assertClean(backend)
    }))

  it.effect("can be repeated, retried and looped inside one outer scope", () =>
    scenario(function*({ backend, lock }) {
      let runs = 0
      const once = lock.withLock(
        "k",
        Effect.addFinalizer(() => Effect.void).pipe(Effect.andThen(Effect.sync(() => ++runs)))
      )
      yield* Effect.scoped(Effect.repeat(once, { times: 4 }))
      assert.strictEqual(runs, 5)
      const flaky = lock.withLock("k", Effect.suspend(() => ++runs < 10 ? Effect.fail("again") : Effect.succeed(runs)))
      assert.strictEqual(yield* Effect.scoped(Effect.retry(flaky, { times: 10 })), 10)
      yield* Effect.scoped(Effect.forEach([1, 2, 3], () => once))
      assert.strictEqual(runs, 13)
      assertClean(backend)
    }))

  it.effect("ends the fibers that the program leaves behind before the key is released", () =>
    scenario(function*({ backend, lock }) {
      const events: Array<string> = []
      backend.always("release", { onServed: () => events.push("released") })
      const child = Effect.onInterrupt(Effect.never, () => Effect.sync(() => events.push("child ended")))
      yield* lock.withLock("k", Effect.andThen(Effect.forkChild(child, { startImmediately: true }), settle))
      assert.deepStrictEqual(events, ["child ended", "released"])
    }))

  it.effect("works in an uninterruptible region, and is interrupted there by a loss", () =>
    scenario(function*({ backend, lock }) {
      const fiber = yield* start(Effect.uninterruptible(lock.withLock("k", Effect.never)))
      backend.rob("k")
      yield* settle
      assert.strictEqual(errorOf(ended(fiber, "a loss ends the section"), "it was lost")._tag, "LockLost")
      assertClean(backend)
    }))
})

describe("withLockIfAvailable", () => {
  it.effect("runs the program when the key is free, and answers none at once when it is not", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      const free = yield* Effect.all([
        withLockIfAvailable("k", Effect.succeed(1)),
        withLockIfAvailable("k", (lease) => Effect.succeed(lease.key)),
        Effect.succeed(3).pipe(withLockIfAvailable("k")),
        withLockIfAvailable("k", { ttl: "5 seconds" })(() => Effect.succeed(4))
      ]).pipe(Effect.provideService(Lock, lock))
      assert.deepStrictEqual(free, [Option.some(1), Option.some("k"), Option.some(3), Option.some(4)])
      const holder = yield* start(lock.withLock("k", Effect.never))
      const asked = backend.log.length
      assert.deepStrictEqual(yield* lock.withLockIfAvailable("k", Effect.die("run")), Option.none())
      assert.strictEqual(backend.log.length, asked, "the local line knows: nothing is sent")
      assert.deepStrictEqual(yield* stranger.withLockIfAvailable("k", Effect.die("run")), Option.none())
      assert.strictEqual(backend.log.length, asked + 1, "another process asks the backend")
      yield* Fiber.interrupt(holder)
      assertClean(backend)
    }))
})

describe("acquire and tryAcquire", () => {
  it.effect("hold the key until the scope closes", () =>
    scenario(function*({ backend, lock }) {
      const both = Effect.all([acquire("a"), tryAcquire("b")]).pipe(Effect.provideService(Lock, lock))
      const [a, b] = yield* Effect.scoped(Effect.tap(both, ([a, b]) =>
        Effect.gen(function*() {
          assert.isTrue(yield* a.isHeld)
          assert.isTrue(Option.isSome(b))
          assert.deepStrictEqual(yield* Effect.scoped(lock.tryAcquire("a")), Option.none())
        })))
      assert.isFalse(yield* a.isHeld)
      assert.isFalse(yield* Effect.flatMap(Effect.fromOption(b), (lease) => lease.isHeld))
      assertClean(backend)
    }))

  it.effect("into a scope that is closed already releases at once", () =>
    scenario(function*({ backend, lock }) {
      const scope = yield* Scope.make()
      yield* Scope.close(scope, Exit.void)
      const lease = yield* Scope.provide(lock.acquire("k"), scope)
      assert.isFalse(yield* lease.isHeld)
      assertClean(backend)
    }))
})

describe("two Lock layers in one program", () => {
  it.effect("exclude each other, and each has a line of its own", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* build(backend, yield* Effect.scope)
      const order: Array<string> = []
      const work = (name: string) => Effect.andThen(Effect.sync(() => order.push(name)), Effect.sleep(seconds(1)))
      const fibers = yield* Effect.forEach(
        [["a1", lock], ["b1", other], ["a2", lock], ["b2", other]] as const,
        ([name, from]) => start(from.withLock("k", work(name)))
      )
      assert.strictEqual(backend.count("acquire"), 2, "the backend sees one contender per layer")
      yield* elapse(seconds(4))
      yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(order, ["a1", "b1", "a2", "b2"])
      assertClean(backend)
    }))
})

describe("retry", () => {
  it.effect("attempts on the schedule instead of waiting in line, and is held when the schedule is over", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      const holder = yield* start(stranger.withLock("k", Effect.never))
      const retry = Schedule.upTo(Schedule.spaced("1 second"), { times: 2 })
      const waiter = yield* start(lock.withLock("k", Effect.void, { retry }))
      yield* elapse(seconds(1))
      assert.strictEqual(backend.count("tryAcquire"), 2)
      assert.isTrue(isPending(waiter))
      yield* elapse(seconds(1))
      const error = errorOf(ended(waiter, "the schedule is over"), "held")
      assertError(error, { _tag: "LockUnavailable", reason: "held" })
      const second = yield* start(lock.withLock("k", Effect.succeed("got it"), { retry }))
      yield* Fiber.interrupt(holder)
      yield* elapse(seconds(1))
      assert.deepStrictEqual(ended(second, "the next attempt has it"), Exit.succeed("got it"))
      assertClean(backend)
    }))

  it.effect("a schedule sees the error, and does not see errors of the backend", () =>
    scenario(function*({ backend, lock }) {
      const seen: Array<string> = []
      const retry = Schedule.tap(
        Schedule.passthrough(Schedule.forever),
        ({ input }) => Effect.sync(() => seen.push(String(input)))
      )
      backend.script("tryAcquire", { fails: "Rejected" })
      const exit = yield* Effect.exit(lock.withLock("k", Effect.void, { retry }))
      assertError(errorOf(exit, "the backend's error"), { _tag: "LockBackendError", reason: "Rejected" })
      assert.deepStrictEqual(seen, [])
      assertClean(backend)
    }))

  it.effect("a schedule that throws is a defect, and nothing is left", () =>
    scenario(function*({ backend, lock }) {
      yield* start(Effect.andThen(lock.acquire("k"), Effect.never))
      const retry = Schedule.map(Schedule.spaced("1 second"), () => {
        throw new Error("schedule")
      })
      const exit = yield* Effect.exit(lock.withLock("k", Effect.void, { retry }))
      assert.isTrue(Exit.hasDies(exit))
      assert.strictEqual(backend.requests.length, 1, "nothing else was asked for")
    }))

  it.effect("ends with the timeout", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      yield* start(stranger.withLock("k", Effect.never))
      const options = { retry: Schedule.spaced("1 second"), timeout: "2500 millis" } as const
      const waiter = yield* start(lock.withLock("k", Effect.void, options))
      yield* elapse(2500)
      assertError(errorOf(ended(waiter, "in time"), "timeout"), { _tag: "LockUnavailable", reason: "timeout" })
      yield* elapse(seconds(5))
      assert.strictEqual(backend.count("tryAcquire"), 3, "no attempt after the timeout")
    }))
})
