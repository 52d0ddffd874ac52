import { Leader, type Lease, Lock, LockConfig, type LockError, withLock } from "@dlock/core"
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Metric, Option, Schedule, Scope, Stream } from "effect"
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

const using = (lock: Lock["Service"]) => Effect.provideService(Lock, lock)
const other = (backend: Parameters<typeof build>[0]) => Effect.flatMap(Effect.scope, (scope) => build(backend, scope))

class Store extends Context.Service<Store, number>()("Store") {}

const leading = Effect.map(Metric.snapshot, (all) => {
  const state = all.find(({ id }) => id === "dlock_leader")?.state
  return state !== undefined && "value" in state ? state.value : undefined
})

describe("types", () => {
  it("what the program needs and fails with, the errors of locks, and no scope but the candidate's", () => {
    const program: Effect.Effect<number, "no", Store | Scope.Scope> = Effect.never
    expectTypeOf(Leader.run("k", program)).toEqualTypeOf<Effect.Effect<number, "no" | LockError, Store | Lock>>()
    expectTypeOf(Leader.make("k")).toEqualTypeOf<Effect.Effect<Leader.Leader, LockError, Scope.Scope | Lock>>()
    const run = (leader: Leader.Leader) => leader.run(program)
    expectTypeOf(run).returns.toEqualTypeOf<Effect.Effect<number, "no" | LockError, Store>>()
    expectTypeOf<Leader.Leader["changes"]>().toEqualTypeOf<Stream.Stream<Option.Option<Lease>, LockError>>()
    // @ts-expect-error a candidate always stands in line
    Leader.run("k", program, { timeout: 5 })
  })
})

describe("Leader.run", () => {
  it.effect("waits without limit to be elected, and its result is that of the program", () =>
    scenario(function*({ backend }) {
      const defaults = { retry: Schedule.recurs(0), timeout: 1, linger: seconds(5), minHold: seconds(5) }
      const lock = yield* Effect.provideService(
        build(backend, yield* Effect.scope),
        LockConfig.LockDefaults,
        defaults
      )
      const first = yield* start(using(lock)(Leader.run("k", Effect.never)))
      const second = yield* start(using(yield* other(backend))(Leader.run("k", ({ key }) => Effect.succeed(key))))
      yield* elapse(seconds(1000))
      assert.isTrue(isPending(second))
      yield* Fiber.interrupt(first)
      yield* settle
      assert.deepStrictEqual(ended(second, "elected at once"), Exit.succeed("k"))
      const failed = yield* Effect.exit(using(lock)(Leader.run("k", Effect.fail("no"))))
      assert.deepStrictEqual(failed, Exit.fail("no"))
      assert.isTrue(Exit.hasDies(yield* Effect.exit(using(lock)(Leader.run("k", Effect.die("oh"))))))
      assertClean(backend)
    }))

  it.effect("a lost lease interrupts the program, which runs again when it is elected again", () =>
    scenario(function*({ backend, lock }) {
      const tokens: Array<bigint> = []
      let inside = 0
      const program = (lease: Lease) =>
        Effect.acquireUseRelease(
          Effect.sync(() => {
            tokens.push(lease.fencingToken)
            assert.strictEqual(++inside, 1)
          }),
          () => Effect.never,
          () => Effect.sync(() => inside--)
        )
      const fiber = yield* start(using(lock)(Leader.run("k", program)))
      for (let i = 0; i < 20; i++) {
        backend.rob("k")
        yield* settle
        yield* elapse(200)
        assert.strictEqual(tokens.length, i + 2, "after a loss it does not wait longer and longer")
      }
      assert.isTrue(isPending(fiber))
      assert.isTrue(tokens.every((token, i) => i === 0 || token > (tokens[i - 1] ?? 0n)))
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(inside, 0)
      assertClean(backend)
    }))

  it.effect("goes on through an outage, with pauses of up to 5 seconds", () =>
    scenario(function*({ backend, lock }) {
      backend.always("acquire", { fails: "Unreachable", arrives: false })
      backend.always("release", { fails: "Unreachable", arrives: false })
      const fiber = yield* start(using(lock)(Leader.run("k", Effect.succeed(1))))
      yield* elapse(seconds(300))
      const asked = backend.count("acquire")
      assert.isTrue(asked > 45 && asked < 90, `asked ${asked} times`)
      backend.always("acquire", {})
      backend.always("release", {})
      yield* elapse(seconds(7))
      assert.deepStrictEqual(ended(fiber, "within a pause of the end of the outage"), Exit.succeed(1))
    }))

  it.effect("the program's own LockLost and LockBackendError are its result", () =>
    scenario(function*({ backend, lock }) {
      let runs = 0
      const program = Effect.andThen(Effect.sync(() => runs++), withLock("other", Effect.never))
      const fiber = yield* start(using(lock)(Leader.run("k", program)))
      backend.rob("other")
      yield* settle
      assertError(errorOf(ended(fiber, "at once"), "its own"), { _tag: "LockLost", key: "other" })
      assert.strictEqual(runs, 1)
      assertClean(backend)
    }))

  it.effect("a program that has ended is not run again because the release finds the key gone", () =>
    scenario(function*({ backend, lock }) {
      let runs = 0
      const program = Effect.as(Effect.andThen(Effect.sync(() => runs++), Effect.sleep(5)), "done")
      const fiber = yield* start(using(lock)(Leader.run("k", program)))
      backend.forget("k")
      yield* elapse(5)
      assert.deepStrictEqual(ended(fiber, "ended"), Exit.succeed("done"))
      yield* elapse(seconds(10))
      assert.strictEqual(runs, 1)
    }))

  it.effect("the last error is the result when the given schedule ends", () =>
    scenario(function*({ backend, lock }) {
      const rejoin = Schedule.max([Schedule.recurs(2), Schedule.spaced(10)])
      const fiber = yield* start(using(lock)(Leader.run("k", Effect.never, { rejoin })))
      for (let i = 0; i < 3; i++) {
        assert.isTrue(isPending(fiber))
        backend.rob("k")
        yield* settle
        yield* elapse(10)
      }
      assertError(errorOf(ended(fiber, "after three losses"), "loss"), { _tag: "LockLost", reason: "taken" })
      assertClean(backend)
    }))

  it.effect("an invalid request, reentry and a closed layer end it at once", () =>
    scenario(function*({ backend, close, lock }) {
      const refused = <A, E>(effect: Effect.Effect<A, E, Lock>) => Effect.flip(using(lock)(effect))
      assertError(yield* refused(Leader.run("", Effect.void)), { _tag: "InvalidLockRequest" })
      assertError(yield* refused(Leader.run("k", Effect.void, { ttl: -1 })), { _tag: "InvalidLockRequest" })
      // @ts-expect-error an async function makes no effect
      const made: Effect.Effect<unknown, LockError, Lock> = Leader.run("k", async () => {})
      assertError(yield* refused(made), { _tag: "InvalidLockRequest" })
      const again = Leader.run("k", Leader.run("k", Effect.void))
      assertError(yield* refused(again), { _tag: "LockUnavailable", reason: "reentry" })
      const fiber = yield* start(using(lock)(Leader.run("k", Effect.never)))
      yield* close
      assertError(errorOf(ended(fiber, "closed"), "closed"), { _tag: "LockLost", reason: "closed" })
      assertClean(backend)
    }))

  it.effect("a layer that closes ends a candidate that waits, in line and between two elections", () =>
    scenario(function*({ backend, close, lock }) {
      yield* start(using(yield* other(backend))(withLock("k", Effect.never)))
      const inLine = yield* start(using(lock)(Leader.run("k", Effect.never)))
      const rejoin = Schedule.forever.pipe(Schedule.addDelay(() => Effect.succeed(seconds(5))))
      const between = yield* start(using(lock)(Leader.run("other", Effect.never, { rejoin })))
      backend.rob("other")
      yield* settle
      assert.isTrue([inLine, between].every(isPending))
      yield* close
      yield* elapse(seconds(5))
      for (const fiber of [inLine, between]) {
        assertError(errorOf(ended(fiber, "closed"), "closed"), { _tag: "LockBackendError", reason: "Closed" })
      }
      const message = "scripted could not acquire: the Lock layer is closed"
      const error = yield* Effect.flip(using(lock)(Leader.run("k", Effect.void)))
      assertError(error, { reason: "Closed", message })
    }))

  it.effect("counts the leaders", () =>
    scenario(function*({ lock }) {
      const fibers = yield* Effect.all(["a", "b", "b"].map((key) => start(using(lock)(Leader.run(key, Effect.never)))))
      assert.strictEqual(yield* leading, 2)
      yield* Fiber.interruptAll(fibers)
      assert.strictEqual(yield* leading, 0)
    }))
})

describe("Leader.make", () => {
  it.effect("leads until its scope closes, and then the next does at once", () =>
    scenario(function*({ backend, lock }) {
      const scope = yield* Scope.make()
      const first = yield* using(lock)(Scope.provide(Leader.make("k"), scope))
      const second = yield* using(yield* other(backend))(Leader.make("k"))
      yield* settle
      assert.deepStrictEqual([yield* first.isLeader, yield* second.isLeader], [true, false])
      const program = yield* start(first.run(Effect.never))
      yield* Scope.close(scope, Exit.void)
      yield* settle
      assert.deepStrictEqual([yield* first.isLeader, yield* second.isLeader], [false, true])
      assert.isFalse(isPending(program), "what ran while it led has ended")
      assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(first.run(Effect.void))), "it never leads again")
    }))

  it.effect("tells its changes, first what is now, and ends them with its scope", () =>
    scenario(function*({ backend, lock }) {
      const scope = yield* Scope.make()
      const leader = yield* using(lock)(Scope.provide(Leader.make("k"), scope))
      const seen: Array<boolean> = []
      const told = Stream.runForEach(leader.changes, (lease) => Effect.sync(() => seen.push(Option.isSome(lease))))
      const watching = yield* start(told)
      backend.rob("k")
      yield* settle
      assert.deepStrictEqual(seen, [true, false])
      yield* elapse(200)
      assert.deepStrictEqual(seen, [true, false, true])
      yield* Scope.close(scope, Exit.void)
      yield* settle
      assert.deepStrictEqual(seen, [true, false, true, false])
      assert.isTrue(Exit.isSuccess(ended(watching, "the stream has ended")))
      assertClean(backend)
    }))

  it.effect("runs programs while it leads, again after a loss, and leads on when they have ended", () =>
    scenario(function*({ backend, lock }) {
      const leader = yield* using(lock)(Leader.make("k"))
      const tokens: Array<bigint> = []
      const program = (lease: Lease) =>
        Effect.andThen(Effect.sync(() => tokens.push(lease.fencingToken)), Effect.as(Effect.sleep(seconds(1)), "done"))
      const first = yield* start(leader.run(Effect.sleep(1)))
      yield* elapse(1)
      assert.isTrue(Exit.isSuccess(ended(first, "it has ended")))
      assert.isTrue(yield* leader.isLeader, "leadership does not end with the program")
      const running = yield* start(leader.run(program))
      backend.rob("k")
      yield* settle
      assert.isFalse(yield* leader.isLeader)
      yield* elapse(200)
      assert.strictEqual(tokens.length, 2, "started anew")
      yield* elapse(seconds(1))
      assert.deepStrictEqual(ended(running, "it has ended"), Exit.succeed("done"))
      assert.isTrue(yield* leader.isLeader)
      assert.deepStrictEqual(yield* Effect.exit(leader.run(Effect.fail("no"))), Exit.fail("no"))
      assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(leader.run(Effect.interrupt))), "its own interruption")
      const inner = yield* Effect.flip(leader.run(using(lock)(withLock("k", Effect.void))))
      assertError(inner, { _tag: "LockUnavailable", reason: "reentry" })
    }))

  it.effect("resigns: programs are interrupted before the key is free, and it goes to the end of the line", () =>
    scenario(function*({ backend, lock }) {
      const first = yield* using(lock)(Leader.make("k"))
      const second = yield* using(yield* other(backend))(Leader.make("k"))
      yield* first.resign
      yield* settle
      assert.deepStrictEqual([yield* first.isLeader, yield* second.isLeader], [false, true])
      yield* first.resign
      yield* second.resign
      yield* settle
      assert.deepStrictEqual([yield* first.isLeader, yield* second.isLeader], [true, false])
      const closing = Effect.onInterrupt(Effect.never, () => Effect.sleep(seconds(1)))
      yield* start(first.run(closing))
      const resigning = yield* start(first.resign)
      assert.deepStrictEqual([yield* first.isLeader, yield* second.isLeader], [false, false])
      yield* elapse(seconds(1))
      assert.isTrue(Exit.isSuccess(ended(resigning, "the key is released")))
      assert.isTrue(yield* second.isLeader)
    }))

  it.effect("resigning at the moment of a loss does not wait for the next term", () =>
    scenario(function*({ backend, lock }) {
      const leader = yield* using(lock)(Leader.make("k"))
      const slow = Effect.onInterrupt(Effect.never, () => Effect.sleep(seconds(1)))
      const running = yield* start(leader.run(slow))
      const term = yield* start(Effect.andThen(Effect.sync(() => backend.rob("k")), leader.resign))
      yield* elapse(seconds(2))
      assert.isTrue(Exit.isSuccess(ended(term, "resigned")))
      yield* start(Fiber.interrupt(running))
      yield* elapse(seconds(1))
    }))

  it.effect("an invalid request fails at once, and a schedule that ends fails what waits for it", () =>
    scenario(function*({ backend, lock }) {
      assertError(yield* Effect.flip(using(lock)(Leader.make(""))), { _tag: "InvalidLockRequest" })
      const leader = yield* using(lock)(Leader.make("k", { rejoin: Schedule.recurs(0) }))
      const watching = yield* start(Stream.runDrain(leader.changes))
      backend.rob("k")
      yield* settle
      assertError(errorOf(ended(watching, "told"), "loss"), { _tag: "LockLost" })
      assertError(yield* Effect.flip(leader.run(Effect.void)), { _tag: "LockLost" })
      assert.isFalse(yield* leader.isLeader)
    }))

  it.effect("a defect of the backend fails what waits for it", () =>
    scenario(function*({ backend, lock }) {
      backend.always("acquire", { dies: "defect", after: 1 })
      const leader = yield* using(lock)(Leader.make("k"))
      const watching = yield* start(Stream.runDrain(leader.changes))
      const running = yield* start(leader.run(Effect.void))
      yield* elapse(10)
      assert.deepStrictEqual(ended(watching, "told"), Exit.die("defect"))
      assert.deepStrictEqual(ended(running, "told"), Exit.die("defect"))
      assert.isFalse(yield* leader.isLeader)
    }))
})

const electing: Cast = {
  caller: 0,
  strangers: true,
  fibers: ({ lock, stranger, work }) => [
    using(lock)(Leader.run("k", work, { rejoin: Schedule.recurs(1) })),
    using(stranger)(Leader.run("k", work, { rejoin: Schedule.recurs(1) }))
  ]
}
const candidate: Cast = {
  caller: 0,
  strangers: true,
  fibers: ({ lock, stranger, work }) => [
    Effect.scoped(Effect.flatMap(
      using(lock)(Leader.make("k", { rejoin: Schedule.recurs(1) })),
      (leader) => Effect.andThen(leader.run(work), leader.resign)
    )),
    stranger.withLock("k", work)
  ]
}

describe.each([["run", electing], ["make", candidate]] as const)("Leader.%s: nothing is left", (_, cast) => {
  const kinds = [
    "an interruption",
    "an interruption during a yield",
    "a yield",
    "a loss",
    "the end of the layer"
  ] as const
  it.effect.each(kinds)("after %s at any operation", (kind) =>
    Effect.gen(function*() {
      assert.isAbove(yield* atEveryOperation(cast, disturbances[kind], false), 20, "runs")
    }), 120_000)
})
