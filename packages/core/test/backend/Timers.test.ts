import { Calls, Errors, Timers } from "@dlock/core/backend"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"

const errors = Errors.make("own")

/** Lets the fibers that are due take their turn. */
const settle = TestClock.adjust(0)

describe("timers", () => {
  it.effect("ring once, in the order in which they are due", () =>
    Effect.gen(function*() {
      const timers = yield* Timers.make
      const rung: Array<number> = []
      const dues = [50, 10, 40, 20, 30, 10]
      const all = dues.map((due) => Timers.timer((now) => rung.push(due, now)))
      all.forEach((timer, index) => timers.set(timer, timers.now() + (dues[index] ?? 0)))
      const [, , cleared] = all
      assert.isDefined(cleared)
      assert.isTrue(cleared && timers.clear(cleared))
      assert.isFalse(cleared && timers.clear(cleared), "it was not set any more")
      for (let elapsed = 0; elapsed < 60; elapsed++) yield* TestClock.adjust(1)
      assert.deepStrictEqual(rung, [10, 10, 10, 10, 20, 20, 30, 30, 50, 50])
    }))

  it.effect("ring in time when an earlier one is set while they wait, or one is set anew", () =>
    Effect.gen(function*() {
      const timers = yield* Timers.make
      const rung: Array<string> = []
      const late = Timers.timer(() => rung.push("late"))
      const early = Timers.timer(() => rung.push("early"))
      timers.set(late, 1000)
      yield* settle
      timers.set(early, 10)
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(rung, ["early"])
      timers.set(late, 20)
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(rung, ["early", "late"])
      timers.set(late, 50)
      timers.set(late, 100)
      yield* TestClock.adjust(79)
      assert.deepStrictEqual(rung, ["early", "late"])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(rung, ["early", "late", "late"])
    }))

  it.effect("ring as in a sorted list, whatever is set and cleared", () =>
    Effect.gen(function*() {
      const timers = yield* Timers.make
      let seed = 1
      const random = (below: number) => (seed = seed * 48_271 % 2_147_483_647) % below
      const rung: Array<number> = []
      const all = Array.from({ length: 300 }, () => {
        const timer: Timers.Timer = Timers.timer(() => rung.push(timer.due))
        return timer
      })
      for (let step = 0; step < 5000; step++) {
        const timer = all[random(all.length)]
        if (timer === undefined) continue
        if (random(3) === 0) timers.clear(timer)
        else timers.set(timer, 1 + random(100))
      }
      const expected = all.filter(({ slot }) => slot !== -1).map(({ due }) => due).toSorted((a, b) => a - b)
      yield* TestClock.adjust(200)
      assert.deepStrictEqual(rung, expected)
    }))

  it.effect("ring although another one threw, and not after the scope closed", () =>
    Effect.gen(function*() {
      const rung: Array<string> = []
      const timers = yield* Effect.scoped(Effect.gen(function*() {
        const timers = yield* Timers.make
        timers.set(
          Timers.timer(() => {
            throw new Error("as planned")
          }),
          5
        )
        timers.set(Timers.timer(() => rung.push("next")), 5)
        yield* TestClock.adjust(5)
        assert.deepStrictEqual(rung, ["next"])
        return timers
      }))
      timers.set(Timers.timer(() => rung.push("closed")), 6)
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(rung, ["next"])
    }))
})

describe("calls", () => {
  it.effect("are answered, or late, and what comes after that is dropped", () =>
    Effect.gen(function*() {
      const timers = yield* Timers.make
      const dropped: Array<string> = []
      const settles: Array<(exit: Exit.Exit<string, string>) => void> = []
      const call = (name: string) =>
        Calls.once<string, string>(timers, {
          limit: 100,
          onLate: (limit) => `no answer within ${limit} ms`,
          send: (settle) => {
            settles.push(settle)
            return () => dropped.push(name)
          }
        })
      const answered = yield* Effect.forkChild(call("answered"), { startImmediately: true })
      const late = yield* Effect.forkChild(Effect.flip(call("late")), { startImmediately: true })
      const interrupted = yield* Effect.forkChild(call("interrupted"), { startImmediately: true })
      settles[0]?.(Exit.succeed("yes"))
      assert.strictEqual(yield* Fiber.join(answered), "yes")
      yield* Fiber.interrupt(interrupted)
      yield* TestClock.adjust(100)
      assert.strictEqual(yield* Fiber.join(late), "no answer within 100 ms")
      settles.forEach((settle) => settle(Exit.succeed("too late")))
      assert.deepStrictEqual(dropped, ["interrupted", "late"])
    }))

  it.effect("that are answered at once need no timer", () =>
    Effect.gen(function*() {
      const timers = yield* Timers.make
      const exit = yield* Effect.exit(Calls.once<never, string>(timers, {
        limit: 100,
        onLate: () => "late",
        send: (settle) => settle(Exit.fail("refused"))
      }))
      assert.deepStrictEqual(Exit.isFailure(exit) && Cause.squash(exit.cause), "refused")
    }))

  it.effect("are repeated while their failure passes by itself, with a growing pause and an end", () =>
    Effect.gen(function*() {
      const timers = yield* Timers.make
      const tries: Array<number> = []
      const fiber = yield* Effect.forkChild(
        Effect.flip(Calls.repeat(timers, { limit: 1000, again: Errors.passes, ways: 2 }, (left) => {
          tries.push(1000 - left)
          return Effect.fail(errors.unreachable("acquire"))
        })),
        { startImmediately: true }
      )
      for (let elapsed = 0; elapsed < 1000; elapsed += 10) yield* TestClock.adjust(10)
      assert.strictEqual((yield* Fiber.join(fiber)).reason, "Unreachable")
      assert.deepStrictEqual(tries, [0, 0, 20, 60, 140, 300, 620])
    }))

  it.effect("are not repeated after a failure that does not pass", () =>
    Effect.gen(function*() {
      const timers = yield* Timers.make
      let tries = 0
      const attempt = () => Effect.andThen(Effect.sync(() => tries++), Effect.fail(errors.rejected("acquire")))
      yield* Effect.flip(Calls.repeat(timers, { limit: 1000, again: Errors.passes }, attempt))
      assert.strictEqual(tries, 1)
    }))

  it.effect("tell what an earlier try failed with when the last one ran out of time", () =>
    Effect.gen(function*() {
      const timers = yield* Timers.make
      const told = (failures: ReadonlyArray<string>) => {
        const left = [...failures]
        return Effect.flip(Calls.repeat(
          timers,
          { limit: 1000, ways: failures.length, again: () => left.length > 0, late: (error) => error === "late" },
          () => Effect.suspend(() => Effect.fail(left.shift()))
        ))
      }
      assert.strictEqual(yield* told(["not trusted", "late", "late"]), "not trusted")
      assert.strictEqual(yield* told(["not trusted", "late", "refused"]), "refused")
      assert.strictEqual(yield* told(["late", "refused", "late"]), "refused")
      assert.strictEqual(yield* told(["late", "late"]), "late")
    }))
})
