import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Answer, Wire } from "../src/internal/MysqlClient.ts"
import * as MysqlConnection from "../src/internal/MysqlConnection.ts"
import { closed, type MysqlError } from "../src/internal/MysqlError.ts"
import { serverError } from "./FakeServer.ts"

/** A connection whose other side is the test. */
const setting = Effect.gen(function*() {
  const sent: Array<string> = []
  const events: Array<string> = []
  let reply: ((exit: Exit.Exit<Answer, MysqlError>) => void) | undefined
  let end: ((error: MysqlError) => void) | undefined
  const wire: Wire = {
    threadId: 7,
    send: (sql, onAnswer) => {
      sent.push(sql)
      reply = onAnswer
    },
    onClose: (listener) => {
      end = listener
    },
    quit: Effect.void,
    destroy: () => {
      events.push("destroyed")
    }
  }
  const connection = yield* MysqlConnection.make(wire, Duration.seconds(5), {
    onClose: (error) => {
      events.push(`closed: ${error.message}`)
    },
    onStall: () => {
      events.push("stalled")
    }
  })
  const answer = (...cells: ReadonlyArray<string | null>) =>
    reply?.(Exit.succeed({ rows: cells.map((cell) => [cell]), insertId: 0n }))
  return {
    connection,
    sent,
    events,
    answer,
    refuse: (errno: number) => reply?.(Exit.fail(serverError(errno))),
    end: (message: string) => end?.(closed(message))
  }
})

const wait = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

describe("MysqlConnection", () => {
  it.effect("what gathers while a statement is under way goes out as one, and each gets its own answer", () =>
    Effect.gen(function*() {
      const { answer, connection, sent } = yield* setting
      const one = connection.ask("1")
      const two = connection.ask("2")
      const three = connection.ask("3")
      assert.deepStrictEqual(sent, ["SELECT 1 AS a"])
      answer("one")
      assert.deepStrictEqual(sent[1], "SELECT 2 AS a UNION ALL SELECT 3")
      answer("two", null)
      assert.deepStrictEqual(yield* Effect.all([one.await, two.await, three.await]), ["one", "two", null])
    }))

  it.effect("what is asked by those who got an answer goes out together, too", () =>
    Effect.gen(function*() {
      const { answer, connection, sent } = yield* setting
      connection.ask("0")
      const again = (n: number) => wait(Effect.map(connection.ask(`${n}`).await, () => connection.ask(`${n} again`)))
      yield* again(1)
      yield* again(2)
      answer("")
      answer("", "")
      assert.strictEqual(sent[2], "SELECT 1 again AS a UNION ALL SELECT 2 again")
    }))

  it.effect("statements keep their order, and a statement of its own is alone", () =>
    Effect.gen(function*() {
      const { answer, connection, sent } = yield* setting
      connection.ask("1")
      connection.ask("2")
      connection.run("SET a = 1")
      connection.ask("3")
      answer("")
      answer("")
      answer()
      assert.deepStrictEqual(sent, ["SELECT 1 AS a", "SELECT 2 AS a", "SET a = 1", "SELECT 3 AS a"])
    }))

  it.effect("an error in company is not everybody's: each is asked again, alone", () =>
    Effect.gen(function*() {
      const { answer, connection, refuse, sent } = yield* setting
      connection.ask("1")
      const good = connection.ask("2")
      const bad = connection.ask("3")
      answer("")
      refuse(3058)
      assert.deepStrictEqual(sent.slice(2), ["SELECT 2 AS a"])
      answer("two")
      refuse(3058)
      assert.strictEqual(yield* good.await, "two")
      assert.strictEqual((yield* Effect.flip(bad.await)).errno, 3058)
    }))

  it.effect("an answer that is overdue is told once, and counts when it comes", () =>
    Effect.gen(function*() {
      const { answer, connection, events, sent } = yield* setting
      const ask = connection.ask("1")
      const settled = yield* wait(ask.settled)
      const waiting = yield* wait(ask.await)
      yield* TestClock.adjust("4999 millis")
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Effect.flip(Fiber.join(waiting))).code, "DLOCK_STALLED")
      assert.isTrue(connection.isStalled())
      assert.deepStrictEqual(events, ["stalled"])
      const late = yield* wait(connection.ask("2").await)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Effect.flip(Fiber.join(late))).code, "DLOCK_STALLED", "what is asked later fails, too")
      assert.strictEqual(sent.length, 1)
      answer("at last")
      assert.isFalse(connection.isStalled())
      assert.strictEqual(yield* Fiber.join(settled), "at last")
      assert.strictEqual(yield* ask.await, "at last")
      assert.strictEqual(sent.length, 2, "the queue goes on")
    }))

  it.effect("the limit counts from the sending, however long the queue was", () =>
    Effect.gen(function*() {
      const { answer, connection, events } = yield* setting
      connection.ask("1")
      connection.run("2")
      yield* TestClock.adjust("4 seconds")
      answer("")
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(events, [])
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual(events, ["stalled"])
    }))

  it.effect("a patient question may take for ever", () =>
    Effect.gen(function*() {
      const { answer, connection, events } = yield* setting
      const ask = connection.askPatiently("1")
      yield* TestClock.adjust("10 days")
      assert.deepStrictEqual(events, [])
      answer("1")
      assert.strictEqual(yield* ask.await, "1")
    }))

  it.effect("what was not sent can be withdrawn, what was can not", () =>
    Effect.gen(function*() {
      const { answer, connection, sent } = yield* setting
      const first = connection.ask("1")
      const second = connection.ask("2")
      assert.isFalse(first.withdraw())
      assert.isTrue(second.withdraw())
      answer("")
      assert.strictEqual(sent.length, 1)
    }))

  it.effect("the server counts from when the last statement that it answered was sent", () =>
    Effect.gen(function*() {
      const { answer, connection } = yield* setting
      yield* TestClock.adjust("1 seconds")
      connection.ask("1")
      connection.run("2")
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual(connection.answeredFrom(), 0n)
      answer("")
      assert.strictEqual(connection.answeredFrom(), 1_000_000_000n)
      yield* TestClock.adjust("1 seconds")
      answer()
      assert.strictEqual(connection.answeredFrom(), 2_000_000_000n)
    }))

  it.effect("when the connection ends, its owner learns it before those whose answers are missing", () =>
    Effect.gen(function*() {
      const { connection, end, events } = yield* setting
      const one = yield* wait(Effect.onExit(connection.ask("1").await, () => Effect.sync(() => events.push("one"))))
      connection.ask("2", () => events.push("two"))
      end("gone")
      assert.strictEqual((yield* Effect.flip(Fiber.join(one))).message, "gone")
      assert.deepStrictEqual(events, ["closed: gone", "two", "one"])
      assert.isFalse(connection.isOpen())
      assert.strictEqual((yield* Effect.flip(connection.ask("3").await)).code, "DLOCK_CLOSED")
    }))

  it.effect("an answer that makes no sense is an error", () =>
    Effect.gen(function*() {
      const { answer, connection } = yield* setting
      connection.ask("1")
      const two = connection.ask("2")
      const three = connection.ask("3")
      answer("")
      answer("2")
      assert.strictEqual(yield* two.await, "2")
      assert.strictEqual((yield* Effect.flip(three.await)).code, "DLOCK_SENSELESS")
    }))
})
