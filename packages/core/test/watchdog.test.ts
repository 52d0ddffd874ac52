import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Exit, Fiber, Scheduler, Scope } from "effect"
import { TestClock } from "effect/testing"
import { type Alarm, Watchdog } from "../src/internal/watchdog.ts"
import {
  assertClean,
  assertError,
  build,
  elapse,
  ended,
  errorOf,
  isPending,
  scenario,
  settle,
  start
} from "./fixture.ts"
import * as ScriptedBackend from "./ScriptedBackend.ts"

class Bell implements Alarm {
  due = 0
  slot = -1
  slack = 0
  readonly rang: Array<number> = []
  readonly onRing: ((now: number) => void) | undefined
  constructor(onRing?: (now: number) => void) {
    this.onRing = onRing
  }
  ring(now: number): void {
    this.rang.push(now)
    this.onRing?.(now)
  }
}

const running = Effect.gen(function*() {
  const watchdog = new Watchdog(yield* Clock.Clock)
  yield* start(watchdog.run)
  return watchdog
})

/** A small random generator with a seed. */
const random = (seed: number) => () => {
  seed = (seed * 1664525 + 1013904223) % 2 ** 32
  return seed / 2 ** 32
}

describe("the watchdog", () => {
  it.effect("rings each alarm once, when it is due, also an earlier one that is set while it sleeps", () =>
    scenario(function*() {
      const watchdog = yield* running
      const [a, b, c] = [new Bell(), new Bell(), new Bell()]
      watchdog.set(a, 5000)
      yield* elapse(100)
      watchdog.set(b, 150)
      watchdog.set(c, 3000)
      watchdog.clear(c)
      yield* elapse(10_000)
      assert.deepStrictEqual([a.rang, b.rang, c.rang], [[5000], [150], []])
      watchdog.set(a, 10_200)
      yield* elapse(100)
      assert.deepStrictEqual(a.rang, [5000, 10_200], "also after a time without any")
      assert.deepStrictEqual(watchdog.alarms, [])
    }))

  it.effect("keeps any number of alarms in any order", () =>
    scenario(function*() {
      const watchdog = yield* running
      const next = random(7)
      const bells = Array.from({ length: 300 }, () => new Bell())
      const due = new Map<Bell, number>()
      for (let i = 0; i < 3000; i++) {
        const bell = bells[Math.floor(next() * bells.length)] ?? assert.fail()
        if (next() < 0.3) {
          watchdog.clear(bell)
          due.delete(bell)
        } else {
          const at = 1 + Math.floor(next() * 500)
          watchdog.set(bell, at)
          due.set(bell, at)
        }
        assert.strictEqual(watchdog.alarms.length, due.size)
      }
      for (const [i, alarm] of watchdog.alarms.entries()) {
        assert.strictEqual(alarm.slot, i)
        assert.isAtMost(watchdog.alarms[(i - 1) >> 1]?.due ?? 0, alarm.due, "no child is due before its parent")
      }
      yield* elapse(600)
      for (const bell of bells) assert.deepStrictEqual(bell.rang, due.has(bell) ? [due.get(bell)] : [])
    }))

  it.effect("may be told to set and clear alarms while one rings", () =>
    scenario(function*() {
      const watchdog = yield* running
      const [later, cleared] = [new Bell(), new Bell()]
      const again: Bell = new Bell((now) => {
        if (again.rang.length < 3) watchdog.set(again, now)
        watchdog.clear(cleared)
        watchdog.set(later, now + 10)
      })
      watchdog.set(again, 100)
      watchdog.set(cleared, 100)
      yield* elapse(200)
      assert.deepStrictEqual([again.rang, cleared.rang, later.rang], [[100, 100, 100], [], [110]])
    }))

  it.effect("rings early, within the slack, what can be done together", () =>
    scenario(function*() {
      const watchdog = yield* running
      const bells = [0, 10, 20, 30, 60].map((later) => ({ bell: new Bell(), at: 1000 + later }))
      for (const { at, bell } of bells) {
        bell.slack = 30
        watchdog.set(bell, at)
      }
      yield* elapse(2000)
      assert.deepStrictEqual(bells.map(({ bell }) => bell.rang), [[1000], [1000], [1000], [1000], [1060]])
    }))

  it.effect("outlives an alarm that throws", () =>
    scenario(function*() {
      const watchdog = yield* running
      const [bad, good, later] = [
        new Bell(() => {
          throw new Error("ring")
        }),
        new Bell(),
        new Bell()
      ]
      watchdog.set(bad, 100)
      watchdog.set(good, 100)
      watchdog.set(later, 5000)
      yield* elapse(10_000)
      assert.deepStrictEqual([good.rang, later.rang], [[100], [5000]])
    }))

  it.effect("costs nothing while nothing is held, however far time moves", () =>
    scenario(function*() {
      yield* running
      yield* TestClock.adjust("1000 days")
    }))
})

/** A scheduler that makes a fiber yield where it is told to. */
const yielding = (parent: Scheduler.Scheduler, at: (operation: number) => boolean) => {
  let operations = 0
  const scheduler: Scheduler.Scheduler = {
    executionMode: parent.executionMode,
    makeDispatcher: () => parent.makeDispatcher(),
    shouldYield: (fiber) => at(++operations) || parent.shouldYield(fiber)
  }
  return { scheduler, operations: () => operations }
}

describe("a watchdog that is made to yield at any operation", () => {
  // Its deadline comes after 295 ms.
  const ttl = { ttl: 300 } as const
  /** Holds leases for a while, and loses one at its deadline, while fibers yield where they are told to. */
  const run = Effect.fnUntraced(function*(
    at: (operation: number) => boolean,
    name: string,
    turns: number
  ) {
    const quiet = Effect.repeat(Effect.yieldNow, { times: turns })
    const backend = yield* ScriptedBackend.make()
    const { operations, scheduler } = yielding(yield* Scheduler.Scheduler, at)
    const context = Context.make(Scheduler.Scheduler, scheduler)
    const scope = yield* Scope.make()
    const lock = yield* Effect.provideContext(build(backend, scope), context)
    const hold = (key: string, millis: number) =>
      Effect.tap(
        start(Effect.provideContext(lock.withLock(key, Effect.as(Effect.sleep(millis), key), ttl), context)),
        () => quiet
      )
    const pass = (millis: number) => Effect.andThen(elapse(millis), quiet)
    const first = yield* hold("a", 70)
    const second = yield* hold("b", 500)
    yield* pass(500)
    assert.deepStrictEqual(ended(first, name), Exit.succeed("a"), name)
    assert.deepStrictEqual(ended(second, name), Exit.succeed("b"), `${name}: renewed`)
    // Nothing is held any more: the watchdog sleeps without a timer, and must be woken.
    yield* pass(1000)
    backend.always("renew", { arrives: false, fails: "Unreachable" })
    const third = yield* hold("c", 500)
    yield* pass(294)
    assert.isTrue(isPending(third), name)
    yield* pass(1)
    assertError(errorOf(ended(third, `${name}: at the deadline`), name), { _tag: "LockLost", reason: "expired" })
    yield* Scope.close(scope, Exit.void)
    assertClean(backend, name)
    return operations()
  })

  it.effect("hears of an alarm that is set while it yields", () =>
    scenario(function*() {
      const clock = yield* Clock.Clock
      for (let at = 1;; at++) {
        const watchdog = new Watchdog(clock)
        const first = new Bell()
        const second = new Bell()
        const { operations, scheduler } = yielding(yield* Scheduler.Scheduler, (operation) => {
          if (operation === at) queueMicrotask(() => watchdog.set(second, watchdog.now() + 10))
          return operation === at
        })
        const fiber = yield* start(Effect.provideService(watchdog.run, Scheduler.Scheduler, scheduler))
        const begin = watchdog.now()
        watchdog.set(first, begin + 100)
        yield* settle
        yield* elapse(2000)
        assert.deepStrictEqual(first.rang, [begin + 100], `at operation ${at}`)
        if (operations() < at) break
        assert.deepStrictEqual(second.rang, [second.due], `at operation ${at}`)
        yield* Fiber.interrupt(fiber)
      }
    }))

  it.effect("wakes for every renewal and every deadline", () =>
    scenario(function*() {
      for (let at = 1;; at++) {
        if ((yield* run((operation) => operation === at, `at operation ${at}`, 1)) < at) break
      }
    }), 120_000)

  it.effect("also when it yields again and again", () =>
    scenario(function*() {
      // A fiber that yields at every second operation gets nowhere: resuming it is one.
      for (let every = 3; every <= 40; every++) {
        yield* run((operation) => operation % every === 0, `every ${every} operations`, 60)
      }
    }), 120_000)
})
