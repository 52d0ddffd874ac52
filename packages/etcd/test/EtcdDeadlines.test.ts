import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import * as EtcdDeadlines from "../src/internal/EtcdDeadlines.ts"

describe("EtcdDeadlines", () => {
  it.effect("expires each once, at its time, and none that was deleted", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
      const deadlines = yield* EtcdDeadlines.make(now)
      const expired: Array<string> = []
      const add = (name: string, after: number) => {
        const deadline = { at: now() + after, expire: () => void expired.push(name) }
        deadlines.add(deadline)
        return deadline
      }
      add("late", 500)
      add("early", 100)
      assert.isTrue(deadlines.delete(add("deleted", 100)))
      yield* TestClock.adjust("90 millis")
      assert.deepStrictEqual(expired, [])
      yield* TestClock.adjust("50 millis")
      assert.deepStrictEqual(expired, ["early"])
      yield* TestClock.adjust("1 minute")
      add("later", 50)
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(expired, ["early", "late", "later"], "also after a time without any")
    }))
})
