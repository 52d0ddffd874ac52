import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Deadlines from "../src/internal/Deadlines.ts"

describe("deadlines", () => {
  it.effect("each expires once, at its time, and not when it was removed", () =>
    Effect.gen(function*() {
      const deadlines = yield* Deadlines.make(() => {})
      const now = Number(yield* Clock.monotonicTimeNanos) / 1e6
      const expired: Array<string> = []
      const add = (name: string, after: number) => {
        const deadline = new Deadlines.Alarm(() => void expired.push(name))
        deadline.at = now + after
        deadlines.add(deadline)
        return deadline
      }
      add("late", 500)
      add("early", 100)
      const removed = add("removed", 100)
      deadlines.remove(removed)
      yield* TestClock.adjust("90 millis")
      assert.deepStrictEqual(expired, [])
      yield* TestClock.adjust("50 millis")
      assert.deepStrictEqual(expired, ["early"])
      yield* TestClock.adjust("400 millis")
      assert.deepStrictEqual(expired, ["early", "late"])
      yield* TestClock.adjust("10 seconds")
      add("again", 10_700)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(expired, ["early", "late", "again"])
    }))
})
