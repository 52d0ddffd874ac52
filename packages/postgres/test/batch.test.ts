import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Batch } from "../src/internal/batch.ts"
import type { Failure } from "../src/internal/client.ts"
import type { Server } from "./FakeDriver.ts"
import { firstColumn, make, refusal } from "./FakeDriver.ts"

/** A batch over a fake server, and calls of it. `answers`: what the callers were told. */
const joined = Effect.fnUntraced(function*(server: Server) {
  const { client, fake } = yield* make(server)
  const batch = new Batch(client, "select")
  const answers: Array<string> = []
  const settled: Array<string> = []
  const tell = (failure: Failure | undefined): string => {
    if (failure === undefined) return "answered"
    return client.toError("renew", failure).reason
  }
  const call = (key: string, limit = 5000): void =>
    batch.add({
      key,
      limit,
      write: () => [key],
      settled: () => void settled.push(key),
      done: (_row, failure) => void answers.push(`${key} ${tell(failure)}`)
    })
  return { answers, call, client, fake, settled }
})

/** Lets everything happen that needs no time. */
const soon = TestClock.adjust("0 millis")

const answered: Server = (asked) => Effect.succeed(firstColumn(asked).map((_, i) => [i + 1]))

const locked: Server = (asked) =>
  firstColumn(asked).some((key) => String(key).startsWith("locked")) ? Effect.fail(refusal("55P03")) : answered(asked)

describe("batch", () => {
  it.effect("calls of one turn are one statement, in the order of their keys", () =>
    Effect.gen(function*() {
      const { answers, call, fake } = yield* joined(answered)
      for (const key of ["c", "a", "b"]) call(key)
      yield* soon
      assert.deepStrictEqual(fake.asked.map(firstColumn), [["a", "b", "c"]])
      assert.deepStrictEqual(answers, ["a answered", "b answered", "c answered"])
    }))

  it.effect("keys whose rows stay locked do not hold up the others", () =>
    Effect.gen(function*() {
      const { answers, call } = yield* joined(locked)
      for (const key of ["locked 1", "a"]) call(key)
      yield* soon
      call("locked 2")
      yield* soon
      call("b")
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(answers, ["a answered", "b answered"])
      yield* TestClock.adjust("5 seconds")
      assert.sameMembers(answers.slice(2), ["locked 1 Unreachable", "locked 2 Unreachable"])
    }))

  it.effect("while the server refuses everything, calls wait for their place", () =>
    Effect.gen(function*() {
      const { answers, call, fake } = yield* joined(() => Effect.fail(refusal("57P03")))
      for (let i = 0; i < 50; i++) {
        call(`${i}`)
        yield* soon
      }
      assert.lengthOf(fake.asked, 2, "no more than are under way at a time")
      fake.server = answered
      yield* TestClock.adjust("1 second")
      assert.lengthOf(answers, 50)
      assert.isBelow(fake.asked.length, 10)
    }))

  it.effect("each call of a statement has a limit of its own", () =>
    Effect.gen(function*() {
      const { answers, call } = yield* joined(() => Effect.never)
      call("long")
      call("short", 100)
      yield* TestClock.adjust("99 millis")
      assert.deepStrictEqual(answers, [])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(answers, ["short Timeout"])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(answers, ["short Timeout", "long Timeout"])
    }))

  it.effect("a call that waits for its place has one too", () =>
    Effect.gen(function*() {
      const { answers, call } = yield* joined(() => Effect.never)
      for (const key of ["a", "b"]) {
        call(key)
        yield* soon
      }
      call("short", 100)
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(answers, ["short Timeout"])
    }))

  it.effect("an answer that comes after the limit of a call still says that nothing is under way", () =>
    Effect.gen(function*() {
      const { answers, call, settled } = yield* joined((asked) => Effect.delay(answered(asked), "300 millis"))
      call("long")
      call("short", 100)
      yield* TestClock.adjust("300 millis")
      assert.deepStrictEqual(answers, ["short Timeout", "long answered"])
      assert.sameMembers(settled, ["long", "short"])
    }))

  it.effect("calls that are under way when the layer closes fail, and so do later ones", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { answers, call, fake } = yield* Scope.provide(joined(() => Effect.never), scope)
      call("under way")
      yield* soon
      fake.server = () => Effect.fail(refusal("57P03"))
      call("refused for a moment")
      yield* soon
      call("in line")
      yield* soon
      assert.deepStrictEqual(answers, [])
      yield* Scope.close(scope, Exit.void)
      yield* soon
      assert.sameMembers(answers, ["under way Closed", "refused for a moment Closed", "in line Closed"])
      call("later")
      yield* soon
      assert.strictEqual(answers[3], "later Closed")
    }))

  it.effect("calls fail when the driver dies", () =>
    Effect.gen(function*() {
      const { answers, call } = yield* joined(() => Effect.die(new Error("a bug")))
      call("a")
      yield* soon
      assert.deepStrictEqual(answers, ["a Protocol"])
    }))
})
