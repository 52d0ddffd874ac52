import {
  type InvalidLockRequest,
  Lock,
  type LockBackendError,
  type LockError,
  type LockLost,
  withLock,
  withPermit,
  withPermitIfAvailable
} from "@dlock/core"
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Fiber, Option, type Scope } from "effect"
import { inspect } from "node:util"
import { atEveryOperation, type Cast, type Disturbance, disturbances, loss } from "./Disturbance.ts"
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
const neighbour = (backend: Parameters<typeof build>[0]) =>
  Effect.flatMap(Effect.scope, (scope) => build(backend, scope))

/** Holds permits until it is interrupted. */
const hold = (lock: Lock["Service"], amount: Lock.PermitAmount) =>
  start(using(lock)(withPermit("k", amount, Effect.never)))

const permitOf = ({ permit }: Lock.Permit) => Effect.succeed(permit)
const inner = (limit: number) => withPermit("k", { limit }, permitOf)

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
    expectTypeOf(withPermit("k", { limit: 2 }, program)).toEqualTypeOf<Waits>()
    expectTypeOf(program.pipe(withPermit("k", { limit: 2 }, { timeout: 1 }))).toEqualTypeOf<Waits>()
    expectTypeOf(withPermitIfAvailable("k", { limit: 2 }, program)).toEqualTypeOf<Tries>()
    expectTypeOf(program.pipe(withPermitIfAvailable("k", { limit: 2 }))).toEqualTypeOf<Tries>()
    withPermit("k", { limit: 2 }, (permit) => Effect.succeed(expectTypeOf(permit).toEqualTypeOf<Lock.Permit>()))
  })
})

describe("withPermit", () => {
  it.effect("data-first and data-last, with an effect and with a function of the permit", () =>
    scenario(function*({ backend, lock }) {
      const results = yield* Effect.all([
        withPermit("k", { limit: 1 }, Effect.succeed(7)),
        withPermit("k", { limit: 1 }, permitOf),
        Effect.succeed(8).pipe(withPermit("k", { limit: 1 })),
        withPermit("k", { limit: 1 }, { ttl: 1000 })(permitOf)
      ]).pipe(using(lock))
      assert.deepStrictEqual(results, [7, 0, 8, 0])
      yield* settle
      assertClean(backend)
    }))

  it.effect("an uncontended permit costs two locks", () =>
    scenario(function*({ backend, lock }) {
      yield* using(lock)(withPermit("k", { limit: 50 }, Effect.void))
      yield* settle
      assert.strictEqual(backend.log.length, 4)
      assertClean(backend)
    }))

  it.effect("a caller that is alone asks for the line and for a permit at once", () =>
    scenario(function*({ backend, lock }) {
      for (const verb of ["acquire", "tryAcquire"] as const) backend.always(verb, { before: 5, after: 5 })
      let hasBegun = false
      const program = Effect.andThen(Effect.sync(() => hasBegun = true), Effect.sleep(5))
      const fiber = yield* start(using(lock)(withPermit("k", { limit: 50 }, program)))
      yield* elapse(10)
      assert.isTrue(hasBegun, "after one round trip")
      yield* elapse(10)
      assert.isTrue(Exit.isSuccess(ended(fiber, "released")))
      assert.strictEqual(backend.log.length, 4)
      assertClean(backend)
    }))

  it.effect("a permit that is granted before the line is kept for a moment only", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* neighbour(backend)
      const head = yield* start(other.withLock("k#permits", Effect.never))
      const fiber = yield* start(using(lock)(withPermit("k", { limit: 2 }, Effect.succeed("done"))))
      const held = Effect.map(
        Effect.forEach([0, 1], (i) => other.inspect(`k#permit-${i}`)),
        (all) => all.filter(({ holder }) => Option.isSome(holder)).length
      )
      yield* elapse(1)
      assert.strictEqual(yield* held, 1)
      yield* elapse(5)
      assert.strictEqual(yield* held, 0, "the head may wait for it")
      yield* elapse(100)
      assert.strictEqual(yield* held, 0)
      assert.isTrue(isPending(fiber))
      yield* Fiber.interrupt(head)
      yield* elapse(10)
      assert.deepStrictEqual(ended(fiber, "its turn"), Exit.succeed("done"))
      assertClean(backend)
    }))

  it.effect.each([1, 3, 10])(
    "at most %s are in use over all processes, and each caller has a turn",
    (limit) =>
      scenario(function*({ backend, lock }) {
        const other = yield* neighbour(backend)
        let inUse = 0
        let most = 0
        const section = Effect.acquireUseRelease(
          Effect.sync(() => most = Math.max(most, ++inUse)),
          () => Effect.sleep(7),
          () => Effect.sync(() => inUse--)
        )
        const callers = Array.from(
          { length: 40 },
          (_, i) => using(i % 2 === 0 ? lock : other)(withPermit("k", { limit }, section))
        )
        const fiber = yield* start(Effect.all(callers, { concurrency: "unbounded" }))
        for (let i = 0; i < 1500 && isPending(fiber); i++) yield* elapse(1)
        assert.isTrue(Exit.isSuccess(ended(fiber, "all have run")))
        assert.strictEqual(most, limit)
        yield* elapse(100)
        assertClean(backend)
      })
  )

  it.effect("several permits at a time never exceed the limit and never wait in a circle", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* neighbour(backend)
      let inUse = 0
      const section = (permits: number) =>
        Effect.acquireUseRelease(
          Effect.sync(() => {
            inUse += permits
            assert.isAtMost(inUse, 5)
          }),
          () => Effect.sleep(3),
          () => Effect.sync(() => inUse -= permits)
        )
      const callers = Array.from({ length: 40 }, (_, i) => {
        const permits = 1 + (i * 7) % 5
        return using(i % 2 === 0 ? lock : other)(withPermit("k", { limit: 5, permits }, section(permits)))
      })
      const fiber = yield* start(Effect.all(callers, { concurrency: "unbounded" }))
      for (let i = 0; i < 3000 && isPending(fiber); i++) yield* elapse(1)
      assert.isTrue(Exit.isSuccess(ended(fiber, "all have run")))
      yield* elapse(100)
      assertClean(backend)
    }))

  it.effect("a permit passes to the next caller of the process without asking the backend", () =>
    scenario(function*({ backend, lock }) {
      const sections = 10
      const section = using(lock)(withPermit("k", { limit: 20 }, Effect.sleep(1)))
      const fiber = yield* start(Effect.all(
        Array.from({ length: 60 }, () => Effect.repeat(section, { times: sections - 1 })),
        { concurrency: "unbounded" }
      ))
      for (let i = 0; i < 200 && isPending(fiber); i++) yield* elapse(1)
      assert.isTrue(Exit.isSuccess(ended(fiber, "all have run")))
      yield* elapse(100)
      assert.isBelow(backend.log.length / (60 * sections), 0.5, "requests for a section")
      assertClean(backend)
    }))

  it.effect("a process serves its own callers for a turn, and then those of others", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* neighbour(backend)
      const section = withPermit("k", { limit: 2 }, Effect.sleep(1))
      const busy = yield* start(
        using(lock)(Effect.all(
          Array.from({ length: 8 }, () => Effect.forever(section)),
          { concurrency: "unbounded" }
        ))
      )
      for (let i = 0; i < 10; i++) {
        yield* elapse(13)
        const fiber = yield* start(using(other)(section))
        for (let waited = 0; isPending(fiber); waited++) {
          // A turn of the place, another one of the permit, and some sections.
          assert.isBelow(waited, 50, "the caller of another process has its turn")
          yield* elapse(1)
        }
      }
      yield* Fiber.interrupt(busy)
      yield* elapse(100)
      assertClean(backend)
    }))

  it.effect("readers and writers are served in the order in which they come", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* neighbour(backend)
      const order: Array<string> = []
      const caller = (name: string, permits: number, by: Lock["Service"]) =>
        start(
          using(by)(withPermit(
            "k",
            { limit: 8, permits },
            Effect.andThen(Effect.sync(() => order.push(name)), Effect.sleep(seconds(1)))
          ))
        )
      yield* caller("reader 1", 1, lock)
      yield* caller("reader 2", 1, other)
      yield* elapse(10)
      assert.deepStrictEqual(order, ["reader 1", "reader 2"], "readers share")
      yield* caller("writer", 8, lock)
      yield* caller("reader 3", 1, other)
      yield* elapse(500)
      assert.strictEqual(order.length, 2, "a writer waits for the readers, and those behind it wait too")
      yield* elapse(700)
      assert.deepStrictEqual(order.slice(2), ["writer"])
      for (let i = 0; i < 13; i++) yield* elapse(100)
      assert.deepStrictEqual(order.slice(2), ["writer", "reader 3"])
      for (let i = 0; i < 13; i++) yield* elapse(100)
      assertClean(backend)
    }))

  it.effect("a free permit that the head does not wait for is found within 100 ms", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* neighbour(backend)
      const holders = []
      for (let i = 0; i < 20; i++) holders.push(yield* hold(other, { limit: 20 }))
      for (const holder of holders) {
        const fiber = yield* start(using(lock)(withPermit("k", { limit: 20 }, Effect.void)))
        yield* elapse(seconds(1) + 30)
        assert.isTrue(isPending(fiber))
        yield* Fiber.interrupt(holder)
        yield* elapse(100)
        assert.isTrue(Exit.isSuccess(ended(fiber, "found")))
        yield* elapse(100)
        yield* hold(other, { limit: 20 })
        yield* elapse(10)
      }
    }))

  it.effect("a head waits for at most four held permits in the backend's lines", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* neighbour(backend)
      for (let i = 0; i < 20; i++) yield* hold(other, { limit: 20 })
      const waiting = yield* Effect.all(
        Array.from({ length: 5 }, () => start(using(lock)(withPermit("k", { limit: 20, permits: 3 }, Effect.void))))
      )
      yield* elapse(seconds(1))
      const lines = yield* Effect.forEach(
        Array.from({ length: 20 }, (_, i) => i),
        (i) =>
          Effect.map(
            lock.inspect(`k#permit-${i}`),
            ({ waiting }) => typeof waiting === "number" ? waiting : waiting.length
          )
      )
      assert.strictEqual(lines.reduce((sum, one) => sum + one), 4)
      yield* Fiber.interruptAll(waiting)
    }))

  it.effect("the waits of a head are inherited by the next one of its process, and withdrawn when there is none", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* neighbour(backend)
      const holder = yield* hold(other, { limit: 2, permits: 2 })
      const first = yield* start(using(lock)(withPermit("k", { limit: 2 }, Effect.void)))
      const second = yield* start(using(lock)(withPermit("k", { limit: 2 }, Effect.void)))
      const asked = () => backend.log.filter(({ key, verb }) => verb === "acquire" && key.includes("permit-")).length
      assert.strictEqual(asked(), 2)
      yield* Fiber.interrupt(first)
      yield* elapse(60)
      assert.strictEqual(asked(), 2, "inherited")
      yield* Fiber.interrupt(second)
      yield* elapse(10)
      for (const i of [0, 1]) {
        assert.deepStrictEqual((yield* other.inspect(`k#permit-${i}`)).waiting, [], "withdrawn")
      }
      yield* Fiber.interrupt(holder)
      yield* elapse(10)
      assertClean(backend)
    }))

  it.effect("one timeout over the line and the permits, which is answered in time", () =>
    scenario(function*({ backend, lock }) {
      const holder = yield* hold(lock, { limit: 1 })
      for (const before of [0, 5]) {
        backend.always("release", before === 0 ? {} : { before: seconds(3) })
        const waiting = [1, 2].map(() =>
          start(using(lock)(withPermit("k", { limit: 1 }, Effect.void, { timeout: seconds(2) })))
        )
        const fibers = yield* Effect.all(waiting)
        yield* elapse(seconds(2) - 1)
        assert.isTrue(fibers.every(isPending))
        yield* elapse(1)
        for (const fiber of fibers) {
          assertError(errorOf(ended(fiber, "in time"), "timeout"), {
            _tag: "LockUnavailable",
            reason: "timeout",
            key: "k"
          })
        }
      }
      const error = yield* Effect.flip(using(lock)(withPermit("k", { limit: 1 }, Effect.void, { timeout: 0 })))
      assertError(error, { _tag: "LockUnavailable", reason: "held", key: "k" })
      yield* start(Fiber.interrupt(holder))
      for (let i = 0; i < 10; i++) yield* elapse(seconds(1))
      assertClean(backend)
    }))

  it.effect("the loss of a permit interrupts the program, and is about the caller's key", () =>
    scenario(function*({ backend, lock }) {
      const fiber = yield* start(using(lock)(withPermit("k", { limit: 2, permits: 2 }, Effect.never)))
      backend.rob("k#permit-1")
      yield* settle
      assertError(errorOf(ended(fiber, "lost"), "loss"), { _tag: "LockLost", key: "k", reason: "taken" })
      yield* settle
      assertClean(backend)
    }))

  it.effect("the loss of the line is no loss: a program runs on, and what waits stands in line again", () =>
    scenario(function*({ backend, lock }) {
      const holder = yield* hold(lock, { limit: 2 })
      backend.rob("k#permits")
      yield* settle
      assert.isTrue(isPending(holder))
      const other = yield* neighbour(backend)
      const writers = yield* Effect.all(
        [lock, other].map((by) => start(using(by)(withPermit("k", { limit: 2, permits: 2 }, Effect.succeed("done")))))
      )
      for (let i = 0; i < 5; i++) {
        yield* elapse(120)
        backend.rob("k#permits")
        yield* settle
      }
      assert.isTrue(writers.every(isPending))
      yield* Fiber.interrupt(holder)
      for (let i = 0; i < 10; i++) yield* elapse(60)
      for (const writer of writers) assert.deepStrictEqual(ended(writer, "its turn"), Exit.succeed("done"))
      assertClean(backend)
    }))

  it.effect("a head that dies holds up the others for five seconds at most, a holder for its ttl", () =>
    scenario(function*({ backend, lock }) {
      const dead = { owner: "dead/1", spare: 0, onLost: () => {}, onWanted: () => {} }
      const measured = yield* start(using(lock)(withPermit("k", { limit: 1 }, Effect.never)))
      assert.deepStrictEqual(
        backend.requests.map(({ key, ttl }) => [key, ttl]),
        [["k#permits", 5000], ["k#permit-0", 30_000]]
      )
      yield* Fiber.interrupt(measured)
      yield* backend.tryAcquire({ ...dead, key: "k#permits", ttl: 5000 })
      yield* backend.tryAcquire({ ...dead, key: "k#permit-0", ttl: seconds(12) })
      const fiber = yield* start(using(lock)(withPermit("k", { limit: 2, permits: 2 }, Effect.succeed("done"))))
      yield* elapse(seconds(5) - 1)
      assert.isTrue(isPending(fiber))
      const one = yield* start(using(lock)(withPermit("k", { limit: 2 }, Effect.succeed("done"))))
      yield* elapse(seconds(6))
      assert.isTrue(isPending(fiber) && isPending(one))
      yield* elapse(seconds(1) + 1)
      assert.deepStrictEqual(ended(fiber, "the holder's ttl"), Exit.succeed("done"))
      yield* elapse(100)
      assert.deepStrictEqual(ended(one, "behind it"), Exit.succeed("done"))
    }))

  it.effect("a smaller limit sees the first permits only, so that both together admit what the larger one does", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* neighbour(backend)
      for (let i = 0; i < 3; i++) yield* hold(lock, { limit: 3 })
      const small = yield* start(using(other)(withPermit("k", { limit: 2 }, ({ permit }) => Effect.succeed(permit))))
      yield* elapse(seconds(1))
      assert.isTrue(isPending(small))
      backend.rob("k#permit-2")
      yield* elapse(seconds(1))
      assert.isTrue(isPending(small))
      backend.rob("k#permit-1")
      yield* elapse(100)
      assert.deepStrictEqual(ended(small, "one of the first"), Exit.succeed(1))
    }))

  it.effect("its lease is one, of the caller's key, and prints as such", () =>
    scenario(function*({ lock }) {
      yield* using(lock)(withPermit("k", { limit: 3, permits: 3 }, (permit) =>
        Effect.gen(function*() {
          assert.deepInclude(permit, { key: "k", permit: 0, backend: "scripted" })
          assert.strictEqual(
            inspect(permit),
            inspect({
              _tag: "Lease",
              key: "k",
              owner: permit.owner,
              backend: "scripted",
              fencingToken: `${permit.fencingToken}`,
              permit: 0
            })
          )
          assert.isTrue(yield* permit.isHeld)
          yield* permit.renew
          assert.isTrue(Duration.isLessThan(yield* permit.remaining, Duration.seconds(30)))
          assert.strictEqual(yield* permit.guard(Effect.succeed(5)), 5)
          yield* permit.release
          assert.isFalse(yield* permit.isHeld)
          assertError(yield* Effect.flip(permit.guard(Effect.void)), { _tag: "LockLost", key: "k", reason: "closed" })
        })))
    }))

  it.effect("two of one key inside each other are two permits, until there are none for the inner one", () =>
    scenario(function*({ backend, lock }) {
      const nested = withPermit(
        "k",
        { limit: 2 },
        (outer) => Effect.map(inner(2), (permit) => [outer.permit, permit].toSorted())
      )
      assert.deepStrictEqual(yield* using(lock)(nested), [0, 1])
      const error = yield* Effect.flip(using(lock)(withPermit("k", { limit: 1 }, inner(1))))
      assertError(error, { _tag: "LockUnavailable", reason: "reentry", key: "k" })
      yield* using(lock)(withPermit("k", { limit: 2 }, withLock("k", Effect.void)))
      yield* elapse(100)
      assertClean(backend)
    }))

  it.effect("an invalid request is refused before anything is sent", () =>
    scenario(function*({ backend, lock }) {
      const amounts = [0, 65, 1.5, Number.NaN].map((limit) => ({ limit }))
      for (
        const amount of [...amounts, { limit: 2, permits: 3 }, { limit: 2, permits: 0 }, { limit: 2, permits: 0.5 }]
      ) {
        const error = yield* Effect.flip(using(lock)(withPermit("k", amount, Effect.void)))
        assertError(error, { _tag: "InvalidLockRequest", key: "k" }, JSON.stringify(amount))
      }
      const refused = <A, E>(effect: Effect.Effect<A, E, Lock>) => Effect.flip(using(lock)(effect))
      assertError(yield* refused(withPermit("", { limit: 1 }, Effect.void)), { _tag: "InvalidLockRequest" })
      assertError(yield* refused(withPermit("k", { limit: 1 }, Effect.void, { ttl: -1 })), {
        _tag: "InvalidLockRequest",
        key: "k"
      })
      // @ts-expect-error a promise is no effect
      const given: Effect.Effect<unknown, LockError, Lock> = withPermit("k", { limit: 1 }, Promise.resolve(1))
      assertError(yield* refused(given), { _tag: "InvalidLockRequest", key: "k" })
      assert.strictEqual(backend.log.length, 0)
      const long = "k".repeat(1024)
      assert.strictEqual(
        yield* using(lock)(withPermit(long, { limit: 1 }, ({ key }) => Effect.succeed(key.length))),
        1024
      )
      yield* using(lock)(withPermit(`${"k".repeat(1023)}l`, { limit: 1 }, Effect.void))
      assert.strictEqual(new Set(backend.log.map(({ key }) => key)).size, 4, "no two keys share anything")
    }))

  it.effect("an error of the backend is the result, and nothing is held", () =>
    scenario(function*({ backend, lock }) {
      backend.script("tryAcquire", { fails: "Rejected" })
      const exit = yield* Effect.exit(using(lock)(withPermit("k", { limit: 2 }, Effect.die("runs"))))
      assertError(errorOf(exit, "an error"), { _tag: "LockBackendError", reason: "Rejected" })
      yield* settle
      assertClean(backend)
    }))

  it.effect.each(["acquire", "tryAcquire"] as const)(
    "a defect of the backend in %s is the result, and is not asked for again",
    (verb) =>
      scenario(function*({ backend, lock }) {
        backend.always(verb, { dies: "defect", after: 1 })
        const used = yield* start(using(lock)(withPermit("k", { limit: 2 }, Effect.die("run"))))
        yield* elapse(100)
        assert.deepStrictEqual(ended(used, "answered"), Exit.die("defect"))
        assert.isBelow(backend.count("acquire") + backend.count("tryAcquire"), 10)
        assertClean(backend)
      })
  )
})

describe("withPermitIfAvailable", () => {
  it.effect("takes so many permits, or none, and does not stand in line", () =>
    scenario(function*({ backend, lock }) {
      const other = yield* neighbour(backend)
      const attempt = (permits: number) =>
        using(lock)(withPermitIfAvailable("k", { limit: 3, permits }, ({ permit }) => Effect.succeed(permit)))
      assert.deepStrictEqual(yield* attempt(3), Option.some(0))
      const holder = yield* hold(other, { limit: 3, permits: 2 })
      assert.isTrue(Option.isSome(yield* attempt(1)))
      assert.isTrue(Option.isNone(yield* attempt(2)))
      assert.isTrue(Option.isSome(yield* attempt(1)), "nothing is left of the attempt that failed")
      yield* Fiber.interrupt(holder)
      yield* settle
      assertClean(backend)
    }))
})

const nothing: Lock.PermitAmount = { limit: 1 }
const alone: Cast = {
  caller: 0,
  fibers: ({ lock, work }) => [using(lock)(withPermit("k", nothing, work))]
}
const amongOthers: Cast = {
  caller: 1,
  strangers: true,
  fibers: ({ lock, stranger, work }) => [
    using(stranger)(withPermit("k", nothing, work)),
    using(lock)(withPermit("k", nothing, work)),
    using(lock)(withPermit("k", nothing, work))
  ]
}
const robbed: Cast = {
  caller: 0,
  strangers: true,
  fibers: ({ lock, stranger }) =>
    [lock, stranger, lock].map((by) =>
      Effect.ignore(using(by)(withPermit("k", { limit: 2, permits: 2 }, Effect.yieldNow)))
    )
}
describe.each<readonly [string, Cast, ReadonlyArray<readonly [string, Disturbance]>]>([
  ["alone", alone, Object.entries(disturbances).filter(([name]) => name !== "a loss" && name !== "a timeout")],
  ["among others", amongOthers, Object.entries(disturbances).filter(([name]) => name.includes("interruption"))],
  ["robbed", robbed, [["the loss of the line", loss("k#permits")], ["the loss of a permit", loss("k#permit-0")]]]
])("withPermit, %s: nothing is left", (_, cast, kinds) => {
  it.effect.each(kinds)("after %s at any operation", ([_, disturbance]) =>
    Effect.gen(function*() {
      assert.isAbove(yield* atEveryOperation(cast, disturbance, false), 15, "runs")
    }), 120_000)
})
