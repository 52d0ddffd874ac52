import {
  type InvalidLockRequest,
  type Lease,
  Lock,
  type LockBackendError,
  LockConfig,
  type LockError,
  type LockLost,
  withLock,
  withLocks,
  withLocksIfAvailable
} from "@dlock/core"
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, Option, Schedule, type Scope } from "effect"
import { atEveryOperation, type Cast, disturbances } from "./Disturbance.ts"
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

const keysOf = (leases: ReadonlyArray<Lease>) => Effect.succeed(leases.map(({ key }) => key))

const using = (lock: Lock["Service"]) => Effect.provideService(Lock, lock)

/** A key that is held until it is interrupted. */
const hold = (lock: Lock["Service"], key: string) => start(lock.withLock(key, Effect.never))

class Store extends Context.Service<Store, number>()("Store") {}

describe("types", () => {
  it("what the program needs and fails with, the errors of locks, and no scope", () => {
    const program: Effect.Effect<number, "no", Store | Scope.Scope> = Effect.never
    type Waits = Effect.Effect<number, "no" | LockError, Store | Lock>
    type Tries = Effect.Effect<
      Option.Option<number>,
      "no" | LockLost | LockBackendError | InvalidLockRequest,
      Store | Lock
    >
    expectTypeOf(withLocks(["a", "b"], program)).toEqualTypeOf<Waits>()
    expectTypeOf(program.pipe(withLocks(["a", "b"], { timeout: 1 }))).toEqualTypeOf<Waits>()
    expectTypeOf(withLocksIfAvailable(["a", "b"], program)).toEqualTypeOf<Tries>()
    expectTypeOf(program.pipe(withLocksIfAvailable(["a", "b"]))).toEqualTypeOf<Tries>()
  })

  it("one lease for each key of a list that is written down", () => {
    withLocks(["a", "b"], (leases) => {
      expectTypeOf(leases).toEqualTypeOf<readonly [Lease, Lease]>()
      return Effect.void
    })
    const keys: ReadonlyArray<string> = []
    withLocks(keys, (leases) => {
      expectTypeOf(leases).toEqualTypeOf<ReadonlyArray<Lease>>()
      return Effect.void
    })
    // @ts-expect-error several keys always stand in line
    withLocks(keys, Effect.void, { retry: Schedule.spaced(1) })
  })
})

describe("withLocks", () => {
  it.effect("data-first and data-last, with an effect and with a function of the leases in the order given", () =>
    scenario(function*({ backend, lock }) {
      const results = yield* Effect.all([
        withLocks(["b", "a"], Effect.succeed(1)),
        Effect.succeed(2).pipe(withLocks(["b", "a"], { ttl: 1000 })),
        withLocks(["b", "a", "c"], keysOf),
        withLocks(["b", "a"])(keysOf),
        withLocks(["b", "a", "b"], ([first, _, third]) => Effect.succeed(first === third))
      ]).pipe(using(lock))
      assert.deepStrictEqual(results, [1, 2, ["b", "a", "c"], ["b", "a"], true])
      assertClean(backend)
    }))

  it.effect("without keys the program runs, with a scope of its own", () =>
    scenario(function*({ backend, lock }) {
      const events: Array<string> = []
      const program = Effect.as(Effect.addFinalizer(() => Effect.sync(() => events.push("closed"))), 1)
      assert.strictEqual(yield* using(lock)(withLocks([], program)), 1)
      assert.deepStrictEqual(yield* using(lock)(withLocksIfAvailable([], program)), Option.some(1))
      assert.deepStrictEqual(events, ["closed", "closed"])
      assert.strictEqual(backend.log.length, 0)
    }))

  it.effect("asks for all at once, and releases all at once, the last one first", () =>
    scenario(function*({ backend, lock }) {
      const keys = ["d", "a", "c", "b"]
      backend.always("tryAcquire", { before: 5, after: 5 })
      backend.always("release", { before: 5, after: 5 })
      const fiber = yield* start(using(lock)(withLocks(keys, Effect.void)))
      yield* elapse(10)
      assert.strictEqual(backend.count("release"), 4, "all are held after one round trip")
      yield* elapse(10)
      assert.isTrue(Exit.isSuccess(ended(fiber, "released in one round trip")))
      assert.deepStrictEqual(backend.log.map(({ key, verb }) => `${verb} ${key}`), [
        ...["a", "b", "c", "d"].map((key) => `tryAcquire ${key}`),
        ...["d", "c", "b", "a"].map((key) => `release ${key}`)
      ])
      assertClean(backend)
    }))

  it.effect("the order is that of the bytes of UTF-8", () =>
    scenario(function*({ backend, lock }) {
      // As UTF-16, U+1F512 begins with a unit that is below U+FF5E.
      yield* using(lock)(withLocks(["\u{1F512}", "\uFF5E", "b", "a", "B"], Effect.void))
      assert.deepStrictEqual(backend.log.slice(0, 5).map(({ key }) => key), ["B", "a", "b", "\uFF5E", "\u{1F512}"])
    }))

  it.effect("one that is held: those before it are kept, those after it are released, and it waits in line", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* build(backend, yield* Effect.scope)
      const holder = yield* hold(other, "b")
      const fiber = yield* start(using(lock)(withLocks(["a", "b", "c"], Effect.succeed("done"))))
      const isFree = (key: string) => Effect.map(other.withLockIfAvailable(key, Effect.void), Option.isSome)
      assert.isFalse(yield* isFree("a"), "kept")
      assert.isTrue(yield* isFree("c"), "released")
      assert.strictEqual((yield* other.inspect("b")).waiting.toString().split(",").length, 1)
      assert.isTrue(isPending(fiber))
      yield* Fiber.interrupt(holder)
      yield* settle
      assert.deepStrictEqual(ended(fiber, "its turn"), Exit.succeed("done"))
      assertClean(backend)
    }))

  it.effect("many callers with many keys never wait for each other in a circle, and never overlap", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* build(backend, yield* Effect.scope)
      const inside = new Set<string>()
      const keys = ["a", "b", "c", "d", "e"]
      const section = (mine: ReadonlyArray<string>) =>
        Effect.gen(function*() {
          for (const key of mine) {
            assert.isFalse(inside.has(key), `two at once in ${key}`)
            inside.add(key)
          }
          yield* Effect.sleep(1)
          for (const key of mine) inside.delete(key)
        })
      backend.always("tryAcquire", { before: 1, after: 1 })
      const callers = Array.from({ length: 60 }, (_, i) => {
        const mine = [0, 1, 2].map((j) => keys[(i * 7 + j * (1 + i % 4)) % 5] ?? "")
        return using(i % 2 === 0 ? lock : other)(withLocks(mine, section([...new Set(mine)])))
      })
      const fiber = yield* start(Effect.all(callers, { concurrency: "unbounded" }))
      for (let i = 0; i < 600 && isPending(fiber); i++) yield* elapse(1)
      assert.isTrue(Exit.isSuccess(ended(fiber, "all have run")))
      assertClean(backend)
    }))

  it.effect("one timeout is over all of them, and its answer comes in time", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* build(backend, yield* Effect.scope)
      const first = yield* hold(other, "a")
      yield* hold(other, "b")
      const timeout = { timeout: seconds(10) }
      const fiber = yield* start(using(lock)(withLocks(["a", "b"], Effect.void, timeout)))
      yield* elapse(seconds(6))
      yield* Fiber.interrupt(first)
      yield* settle
      yield* elapse(seconds(4) - 1)
      assert.isTrue(isPending(fiber))
      yield* elapse(1)
      const error = errorOf(ended(fiber, "after 10 seconds"), "timeout")
      assertError(error, { _tag: "LockUnavailable", reason: "timeout", key: "b" })
      // No answer at all: it does not wait for what it withdraws.
      backend.always("tryAcquire", { after: "never" })
      const silent = yield* start(using(lock)(withLocks(["c", "d"], Effect.void, timeout)))
      yield* elapse(seconds(10))
      assertError(errorOf(ended(silent, "in time"), "timeout"), { reason: "timeout", key: "c" })
    }))

  it.effect("a timeout of zero is one attempt", () =>
    scenario(function*({ backend, lock }) {
      yield* hold(lock, "b")
      const error = yield* Effect.flip(using(lock)(withLocks(["a", "b"], Effect.void, { timeout: 0 })))
      assertError(error, { _tag: "LockUnavailable", reason: "held", key: "b" })
      assert.strictEqual(backend.count("acquire"), 1)
    }))

  it.effect("the loss of any lease interrupts the program, and names the key", () =>
    scenario(function*({ backend, lock }) {
      for (const key of ["a", "b", "c"]) {
        const events: Array<string> = []
        const program = Effect.onInterrupt(
          Effect.never,
          () => Effect.andThen(Effect.sleep(5), Effect.sync(() => events.push("closed")))
        )
        const fiber = yield* start(using(lock)(withLocks(["a", "b", "c"], program)))
        backend.rob(key)
        yield* settle
        const free = yield* lock.withLockIfAvailable(key === "a" ? "b" : "a", Effect.void)
        assert.isTrue(Option.isNone(free), "the others are held until the program has ended")
        yield* elapse(5)
        assertError(errorOf(ended(fiber, "lost"), "loss"), { _tag: "LockLost", key, reason: "taken" })
        assert.deepStrictEqual(events, ["closed"])
        assertClean(backend)
      }
    }))

  it.effect("a lease that ends by maxHold is not free before the program has ended", () =>
    scenario(function*({ backend, lock }) {
      const program = Effect.onInterrupt(Effect.never, () => Effect.sleep(seconds(3)))
      const fiber = yield* start(using(lock)(withLocks(["a", "b"], program, { maxHold: seconds(5) })))
      yield* elapse(seconds(5))
      yield* elapse(seconds(2))
      assert.strictEqual(backend.count("release"), 0)
      yield* elapse(seconds(1))
      assertError(errorOf(ended(fiber, "closed"), "loss"), { _tag: "LockLost", key: "a", reason: "maxHold" })
      assertClean(backend)
    }))

  it.effect("a lease that is lost while others are waited for ends the wait", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* build(backend, yield* Effect.scope)
      yield* hold(other, "b")
      const fiber = yield* start(using(lock)(withLocks(["a", "b"], Effect.die("runs"))))
      backend.rob("a")
      yield* settle
      assertError(errorOf(ended(fiber, "at once"), "loss"), { _tag: "LockLost", key: "a" })
    }))

  it.effect("a lease that turns out to be gone at the release is a loss", () =>
    scenario(function*({ backend, lock }) {
      const fiber = yield* start(using(lock)(withLocks(["a", "b"], Effect.sleep(5))))
      backend.forget("b")
      yield* elapse(5)
      assertError(errorOf(ended(fiber, "released"), "loss"), { _tag: "LockLost", key: "b", reason: "taken" })
    }))

  it.effect("whatever becomes of the program, all are released", () =>
    scenario(function*({ backend, lock }) {
      const run = <A, E>(program: Effect.Effect<A, E>) => Effect.exit(using(lock)(withLocks(["a", "b"], program)))
      assert.deepStrictEqual(yield* run(Effect.fail("no")), Exit.fail("no"))
      assert.deepStrictEqual(yield* run(Effect.die("oh")), Exit.die("oh"))
      assert.isTrue(Exit.hasInterrupts(yield* run(Effect.interrupt)))
      assertClean(backend)
    }))

  it.effect("an error of the backend is the result, and nothing is held", () =>
    scenario(function*({ backend, lock }) {
      backend.script("tryAcquire", {}, { fails: "Rejected" }, {})
      const exit = yield* Effect.exit(using(lock)(withLocks(["a", "b", "c"], Effect.die("runs"))))
      assertError(errorOf(exit, "an error"), { _tag: "LockBackendError", reason: "Rejected" })
      yield* settle
      assertClean(backend)
    }))

  it.effect("asking for one of them inside is reentry, and so is asking for a key of an outer section", () =>
    scenario(function*({ backend, lock }) {
      const inner = (key: string) => Effect.flip(using(lock)(withLock(key, Effect.void)))
      const errors = yield* using(lock)(withLocks(["a", "b"], Effect.all([inner("a"), inner("b")])))
      for (const error of errors) assertError(error, { _tag: "LockUnavailable", reason: "reentry" })
      const outer = yield* lock.withLock("c", Effect.flip(using(lock)(withLocks(["b", "c"], Effect.void))))
      assertError(outer, { _tag: "LockUnavailable", reason: "reentry", key: "c" })
      const others = withLock("d", Effect.succeed("others are no reentry"))
      assert.isString(yield* using(lock)(withLocks(["a", "b"], withLocks(["e"], others))))
      assertClean(backend)
    }))

  it.effect("a configured retry, timeout, linger or minHold does not reach inside, a given minHold does", () =>
    scenario(function*({ backend }) {
      const defaults = { retry: Schedule.recurs(0), timeout: 1, linger: seconds(5), minHold: seconds(5) }
      const lock = yield* Effect.provideService(
        build(backend, yield* Effect.scope),
        LockConfig.LockDefaults,
        defaults
      )
      const other = yield* build(backend, yield* Effect.scope)
      const holder = yield* hold(other, "a")
      const fiber = yield* start(using(lock)(withLocks(["a", "b"], Effect.void)))
      yield* elapse(seconds(20))
      assert.isTrue(isPending(fiber), "it stands in line")
      yield* Fiber.interrupt(holder)
      yield* settle
      assert.isTrue(Exit.isSuccess(ended(fiber, "its turn")))
      assertClean(backend)
      yield* using(lock)(withLocks(["a", "b"], Effect.void, { minHold: seconds(2) }))
      const isFree = using(other)(Effect.map(withLocksIfAvailable(["a", "b"], Effect.void), Option.isSome))
      yield* elapse(seconds(2) - 1)
      assert.isFalse(yield* isFree)
      yield* elapse(1)
      assert.isTrue(yield* isFree)
    }))

  it.effect("an invalid request is refused before anything is sent", () =>
    scenario(function*({ backend, lock }) {
      const refused = <A, E>(effect: Effect.Effect<A, E, Lock>) => Effect.flip(using(lock)(effect))
      const errors = yield* Effect.all([
        refused(withLocks(["a", ""], Effect.void)),
        refused(withLocks(["a", "b"], Effect.void, { ttl: -1 })),
        refused(withLocks(["a", "b"], Effect.void, { timeout: Number.NaN })),
        refused(withLocksIfAvailable(["a", ""], Effect.void))
      ])
      for (const error of errors) assertError(error, { _tag: "InvalidLockRequest" })
      assert.strictEqual(backend.log.length, 0)
      // @ts-expect-error a promise is no effect
      const given: Effect.Effect<unknown, InvalidLockRequest, Lock> = withLocks(["a"], Promise.resolve(1))
      // @ts-expect-error an async function makes no effect
      const made: Effect.Effect<unknown, InvalidLockRequest, Lock> = withLocks(["a"], async () => {})
      for (const effect of [given, made]) {
        const error = yield* refused(effect)
        assertError(error, { _tag: "InvalidLockRequest", key: "a" })
        assert.include(error.message, "@dlock/core/promise")
      }
      assertClean(backend)
    }))
})

describe("withLocksIfAvailable", () => {
  it.effect("takes all, or nothing", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* build(backend, yield* Effect.scope)
      const attempt = using(lock)(withLocksIfAvailable(["a", "b", "c"], ([a]) => Effect.succeed(a.key)))
      assert.deepStrictEqual(yield* attempt, Option.some("a"))
      const holder = yield* hold(other, "b")
      assert.deepStrictEqual(yield* attempt, Option.none())
      assert.deepStrictEqual(
        yield* using(other)(withLocksIfAvailable(["a", "c"], Effect.succeed("free"))),
        Option.some("free")
      )
      yield* Fiber.interrupt(holder)
      assertClean(backend)
    }))

  it.effect("a loss is a loss, and reentry is none", () =>
    scenario(function*({ backend, lock }) {
      const attempt = using(lock)(withLocksIfAvailable(["a", "b"], Effect.never))
      assert.deepStrictEqual(yield* lock.withLock("b", attempt), Option.none())
      const fiber = yield* start(attempt)
      backend.rob("b")
      yield* settle
      const exit = ended(fiber, "lost")
      assert.isTrue(Exit.isFailure(exit) && !Cause.hasInterrupts(exit.cause))
      assertError(errorOf(exit, "loss"), { _tag: "LockLost", key: "b" })
      assertClean(backend)
    }))
})

const alone = (keys: ReadonlyArray<string>): Cast => ({
  caller: 0,
  fibers: ({ lock, work }) => [using(lock)(withLocks(keys, work))]
})
const amongOthers: Cast = {
  caller: 1,
  strangers: true,
  fibers: ({ lock, stranger, work }) => [
    using(stranger)(withLocks(["k", "l"], work)),
    using(lock)(withLocks(["l", "k"], work)),
    using(stranger)(withLock("k", work))
  ]
}

const all = ["an interruption", "an interruption during a yield", "a yield", "a loss", "the end of the layer"] as const
const some = ["an interruption", "a loss"] as const

describe.each(
  [
    ["alone", alone(["k", "l"]), all, true],
    ["among others of two processes", amongOthers, some, false]
  ] as const
)("withLocks, %s: nothing is left", (_, cast, kinds, alsoSlow) => {
  for (const slow of alsoSlow ? [false, true] : [false]) {
    it.effect.each(kinds)(
      `after %s at any operation${slow ? " over a slow network" : ""}`,
      (kind) =>
        Effect.gen(function*() {
          assert.isAbove(yield* atEveryOperation(cast, disturbances[kind], slow), 15, "runs")
        }),
      60_000
    )
  }
})
