import { Timers } from "@dlock/core/backend"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Answer, Wire } from "../src/internal/client.ts"
import { Connection } from "../src/internal/connection.ts"
import { closed, type MysqlError } from "../src/internal/errors.ts"
import { serverError } from "./FakeServer.ts"

/** What is asked goes out a moment later. */
const soon = Effect.promise(() => Promise.resolve())

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
  const connection = new Connection(wire, 5000, {
    timers: yield* Timers.make,
    fork: Effect.runForkWith(yield* Effect.context())
  }, {
    onClose: (error) => {
      events.push(`closed: ${error.message}`)
    },
    onStall: () => {
      events.push("stalled")
    }
  })
  return {
    connection,
    sent,
    events,
    ask: (text: string, onAnswer?: (exit: Exit.Exit<string | null, MysqlError>) => void) =>
      connection.ask({ text: (again) => again ? `again ${text}` : text }, onAnswer),
    /** Answers the statement under way, and lets the next one go out. */
    answer: (...cells: ReadonlyArray<string | null>) =>
      Effect.andThen(
        Effect.sync(() => reply?.(Exit.succeed({ rows: cells.map((cell) => [cell]) }))),
        soon
      ),
    refuse: (errno: number) => Effect.andThen(Effect.sync(() => reply?.(Exit.fail(serverError(errno)))), soon),
    end: (message: string) => end?.(closed(message))
  }
})

const wait = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

describe("connection", () => {
  it.effect("what gathers while a statement is under way goes out as one, and each gets its own answer", () =>
    Effect.gen(function*() {
      const { answer, ask, sent } = yield* setting
      const one = ask("1")
      yield* soon
      const two = ask("2")
      const three = ask("3")
      yield* soon
      assert.deepStrictEqual(sent, ["SELECT 1 AS a"])
      yield* answer("one")
      assert.deepStrictEqual(sent[1], "SELECT 2 AS a UNION ALL SELECT 3")
      yield* answer("two", null)
      assert.deepStrictEqual(yield* Effect.all([one.await, two.await, three.await]), ["one", "two", null])
    }))

  it.effect("what is asked by fibers that got an answer together goes out together, too", () =>
    Effect.gen(function*() {
      const { answer, ask, sent } = yield* setting
      ask("0")
      yield* soon
      const again = (n: number) => wait(Effect.map(ask(`${n}`).await, () => ask(`${n} more`)))
      yield* again(1)
      yield* again(2)
      yield* answer("")
      yield* answer("", "")
      assert.strictEqual(sent[2], "SELECT 1 more AS a UNION ALL SELECT 2 more")
    }))

  it.effect("statements keep their order, and a statement of its own is alone", () =>
    Effect.gen(function*() {
      const { answer, ask, connection, sent } = yield* setting
      ask("1")
      ask("2")
      connection.run("SET a = 1")
      ask("3")
      yield* soon
      yield* answer("", "")
      yield* answer()
      assert.deepStrictEqual(sent, ["SELECT 1 AS a UNION ALL SELECT 2", "SET a = 1", "SELECT 3 AS a"])
    }))

  it.effect("an error in company need not be each one's: each is asked again, alone", () =>
    Effect.gen(function*() {
      const { answer, ask, refuse, sent } = yield* setting
      const good = ask("2")
      const bad = ask("3")
      yield* soon
      yield* refuse(3058)
      assert.deepStrictEqual(sent.slice(1), ["SELECT again 2 AS a"])
      yield* answer("two")
      yield* refuse(3058)
      assert.strictEqual(yield* good.await, "two")
      assert.strictEqual((yield* Effect.flip(bad.await)).errno, 3058)
    }))

  it.effect("what was refused in company may have been done, and cannot be withdrawn any more", () =>
    Effect.gen(function*() {
      const { answer, ask, refuse } = yield* setting
      ask("1")
      const second = ask("2")
      yield* soon
      yield* refuse(3058)
      assert.isFalse(second.withdraw())
      yield* answer("one")
      yield* answer("two")
      assert.strictEqual(yield* second.await, "two")
    }))

  it.effect("an answer beside one for which the connection is given up means nothing", () =>
    Effect.gen(function*() {
      const { answer, ask, connection } = yield* setting
      const before = ask("1")
      ask("2", () => connection.close(closed("another session answered")))
      const behind = ask("3")
      yield* soon
      yield* answer("", "", "three")
      assert.strictEqual(yield* before.await, "")
      assert.strictEqual((yield* Effect.flip(behind.await)).message, "another session answered")
    }))

  it.effect("a server that ends the session with an answer has ended the connection", () =>
    Effect.gen(function*() {
      for (const errno of [1053, 1927, 4031, 1243]) {
        const { ask, connection, events, refuse } = yield* setting
        const one = ask("1")
        const two = ask("2")
        yield* soon
        yield* refuse(errno)
        assert.deepStrictEqual(events, ["destroyed", `closed: error ${errno}`])
        assert.isFalse(connection.isOpen())
        assert.strictEqual((yield* Effect.flip(one.await)).errno, errno)
        assert.strictEqual((yield* Effect.flip(two.await)).errno, errno)
      }
    }))

  it.effect("nothing is asked of a connection that quits", () =>
    Effect.gen(function*() {
      const { ask, connection, events, sent } = yield* setting
      const late: Array<string> = []
      yield* Effect.all([
        connection.quit,
        Effect.catch(Effect.suspend(() => ask("1").await), (error) => Effect.sync(() => late.push(error.code)))
      ], { concurrency: 2 })
      assert.deepStrictEqual([late, sent], [["DLOCK_CLOSED"], []])
      assert.deepStrictEqual(events, ["closed: closed by the program", "destroyed"])
    }))

  it.effect("an answer that is overdue is told once, and counts when it comes", () =>
    Effect.gen(function*() {
      const { answer, ask, connection, events, sent } = yield* setting
      const asked = ask("1")
      const waiting = yield* wait(asked.await)
      yield* TestClock.adjust("4999 millis")
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Effect.flip(Fiber.join(waiting))).code, "DLOCK_STALLED")
      assert.isTrue(connection.isStalled())
      assert.deepStrictEqual(events, ["stalled"])
      const late = yield* wait(ask("2").await)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Effect.flip(Fiber.join(late))).code, "DLOCK_STALLED", "what is asked later fails, too")
      assert.strictEqual(sent.length, 1)
      yield* answer("at last")
      assert.isFalse(connection.isStalled())
      assert.strictEqual(yield* asked.await, "at last")
      assert.strictEqual(sent.length, 2, "the queue goes on")
    }))

  it.effect("the limit counts from the sending, however long the queue was", () =>
    Effect.gen(function*() {
      const { answer, ask, connection, events } = yield* setting
      ask("1")
      connection.run("2")
      yield* TestClock.adjust("4 seconds")
      yield* answer("")
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(events, [])
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual(events, ["stalled"])
    }))

  it.effect("a patient question may take for ever", () =>
    Effect.gen(function*() {
      const { answer, connection, events } = yield* setting
      const asked = connection.askPatiently({ text: () => "1" })
      yield* TestClock.adjust("10 days")
      assert.deepStrictEqual(events, [])
      yield* answer("1")
      assert.strictEqual(yield* asked.await, "1")
    }))

  it.effect("what was not sent can be withdrawn, what was sent cannot", () =>
    Effect.gen(function*() {
      const { answer, ask, sent } = yield* setting
      const first = ask("1")
      yield* soon
      const second = ask("2")
      assert.isFalse(first.withdraw())
      assert.isTrue(second.withdraw())
      yield* answer("")
      assert.strictEqual(sent.length, 1)
    }))

  it.effect("the server counts from when the last statement that it answered was sent", () =>
    Effect.gen(function*() {
      const { answer, ask, connection } = yield* setting
      yield* TestClock.adjust("1 seconds")
      ask("1")
      connection.run("2")
      yield* soon
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual(connection.answeredFrom(), 0)
      yield* answer("")
      assert.strictEqual(connection.answeredFrom(), 1000)
      yield* TestClock.adjust("1 seconds")
      yield* answer()
      assert.strictEqual(connection.answeredFrom(), 2000)
    }))

  it.effect("when the connection ends, its owner learns it before those whose answers are missing", () =>
    Effect.gen(function*() {
      const { ask, connection, end, events } = yield* setting
      const one = yield* wait(Effect.onExit(ask("1").await, () => Effect.sync(() => events.push("one"))))
      ask("2", () => events.push("two"))
      end("gone")
      assert.strictEqual((yield* Effect.flip(Fiber.join(one))).message, "gone")
      assert.deepStrictEqual(events, ["closed: gone", "two", "one"])
      assert.isFalse(connection.isOpen())
      assert.strictEqual((yield* Effect.flip(ask("3").await)).code, "DLOCK_CLOSED")
    }))

  it.effect("a malformed answer is an error", () =>
    Effect.gen(function*() {
      const { answer, ask } = yield* setting
      const two = ask("2")
      const three = ask("3")
      yield* soon
      yield* answer("2")
      assert.strictEqual(yield* two.await, "2")
      assert.strictEqual((yield* Effect.flip(three.await)).code, "DLOCK_SENSELESS")
    }))
})
