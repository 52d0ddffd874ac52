/**
 * Sessions that end, answers that fail and attempts that are given back at the worst moment.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Option } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Wire } from "../src/internal/MysqlClient.ts"
import * as MysqlDial from "../src/internal/MysqlDial.ts"
import { notConnected } from "../src/internal/MysqlError.ts"
import * as FakeServer from "./FakeServer.ts"
import {
  alone,
  asked,
  attempt,
  backendOf,
  contended,
  expectSome,
  firstSession,
  hold,
  lineUp,
  start,
  turns,
  yielding
} from "./support.ts"

/**
 * Does it with the n-th step, for every n, whatever the steps are: a fiber yields after so many operations. Each time
 * with servers of its own.
 */
const atEveryStep = <E>(run: (step: number, operations: number) => Effect.Effect<unknown, E, Scope.Scope>) =>
  Effect.forEach(
    [3, 4, 5, 6].flatMap((operations) => Array.from({ length: 20 }, (_, step) => [step, operations] as const)),
    ([step, operations]) => Effect.scoped(run(step, operations)),
    { discard: true }
  )

const pass = (step: number) => Effect.repeat(Effect.yieldNow, { times: step })

/** Lets everything come to an end that can. */
const settle = Effect.repeat(Effect.andThen(turns, TestClock.adjust("500 millis")), { times: 8 })

describe("at every step", () => {
  for (const way of ["free", "waited for"] as const) {
    /** An attempt under way, and what lets it go on. */
    const begun = Effect.fnUntraced(function*(operations: number) {
      const { backend, fake, holder, other } = yield* contended("key")
      if (way === "free") yield* other.release(holder)
      const request = attempt("key")
      const acquiring = yield* start(yielding(backend.acquire(request), operations))
      if (way === "waited for") {
        yield* settle
        assert.strictEqual(fake.waiters("key"), 1)
        yield* start(other.release(holder))
      }
      return { acquiring, backend, fake, request }
    })

    it.effect(`killed: nothing stays held, and nobody believes in what is lost (${way})`, () =>
      atEveryStep((step, operations) =>
        Effect.gen(function*() {
          const { acquiring, backend, fake, request } = yield* begun(operations)
          yield* pass(step)
          fake.kill(fake.holder("key") ?? fake.sessions().at(-1)?.id ?? 0)
          yield* settle
          const exit = acquiring.pollUnsafe()
          assert.isDefined(exit, `it ends: step ${step}`)
          if (fake.holder("key") === undefined && exit !== undefined && Exit.isSuccess(exit)) {
            assert.deepStrictEqual(request.losses, ["session"], `the loss was told: step ${step}`)
          }
          yield* backend.release(request)
          assert.isUndefined(fake.holder("key"), `given back: step ${step}`)
          assert.strictEqual(fake.waiters("key"), 0, `nobody waits: step ${step}`)
        })
      ))

    it.effect(`given back: it never holds the key (${way})`, () =>
      atEveryStep((step, operations) =>
        Effect.gen(function*() {
          const { acquiring, backend, fake, request } = yield* begun(operations)
          yield* pass(step)
          const releasing = yield* start(yielding(backend.release(request), operations))
          yield* settle
          assert.isDefined(releasing.pollUnsafe(), `it is given back: step ${step}`)
          assert.isDefined(acquiring.pollUnsafe(), `it ends: step ${step}`)
          assert.isUndefined(fake.holder("key"), `step ${step}`)
          assert.strictEqual(fake.waiters("key"), 0, `nobody waits: step ${step}`)
        })
      ))
  }

  it.effect("given back: it stands in no line", () =>
    atEveryStep((step, operations) =>
      Effect.gen(function*() {
        const { backend, fake, holder, other } = yield* contended("key")
        const request = attempt("key")
        const acquiring = yield* start(yielding(backend.acquire(request), operations))
        yield* pass(2 * step)
        const releasing = yield* start(backend.release(request))
        yield* settle
        assert.isDefined(releasing.pollUnsafe(), `it is given back: step ${step}`)
        assert.isDefined(acquiring.pollUnsafe(), `it ends: step ${step}`)
        assert.strictEqual(fake.waiters("key"), 0, `step ${step}`)
        yield* other.release(holder)
        assert.isUndefined(fake.holder("key"))
      })
    ))

  it.effect("a session that takes free locks is not turned into one that waits", () =>
    atEveryStep((step, operations) =>
      Effect.gen(function*() {
        const { fake, other } = yield* contended("key/1")
        yield* hold(other, "key/2")
        const backend = yield* backendOf(fake, { connectionLimit: 3 })
        const earlier = yield* hold(backend, "free")
        yield* backend.release(earlier)
        yield* start(backend.acquire(attempt("key/1")))
        yield* settle
        const taking = yield* start(yielding(backend.tryAcquire(attempt("free")), operations))
        yield* pass(step)
        yield* start(backend.acquire(attempt("key/2")))
        yield* settle
        assert.isDefined(taking.pollUnsafe(), `no hang behind a wait: step ${step}`)
      })
    ))
})

describe("an attempt", () => {
  it.effect("that shared a statement which failed may have got its lock, and gives it back", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      yield* hold(backend, "warm")
      // The server takes the first lock before it refuses the second, and then is slow.
      const taken = attempt("taken")
      fake.fault = (sql, session) => {
        if (sql.includes("UNION") && sql.includes("'refused'")) {
          fake.grant("taken", session)
          return FakeServer.serverError(3058)
        }
        if (sql.includes("IS_USED_LOCK('first')")) session.frozen = true
        return undefined
      }
      yield* start(backend.tryAcquire(attempt("first")))
      const acquiring = yield* start(backend.tryAcquire(taken))
      yield* start(backend.tryAcquire(attempt("refused")))
      yield* turns
      assert.isDefined(fake.holder("taken"))
      yield* Fiber.interrupt(acquiring)
      const releasing = yield* start(backend.release(taken))
      yield* turns
      fake.sessions().forEach(fake.thaw)
      yield* Fiber.join(releasing)
      assert.isUndefined(fake.holder("taken"))
    }))

  it.effect("that failed fails again when it is asked for again, and does not hang", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = attempt("key")
      fake.fault = (sql) => sql.includes("GET_LOCK") ? FakeServer.serverError(1105) : undefined
      yield* Effect.flip(backend.acquire(request))
      assert.include((yield* Effect.flip(backend.acquire(request))).message, "give it back first")
      assert.include((yield* Effect.flip(backend.tryAcquire(request))).message, "give it back first")
    }))

  it.effect("whose wait can not be ended gives up its connection", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* contended("key")
      const { request, waiting } = yield* lineUp(backend, "key")
      yield* Fiber.interrupt(waiting)
      fake.missedKills = Number.POSITIVE_INFINITY
      const leaving = yield* start(backend.release(request))
      yield* settle
      assert.isFalse(yield* Fiber.join(leaving))
      assert.strictEqual(fake.waiters("key"), 0)
      assert.isBelow(asked(fake, "KILL"), 20)
    }))

  it.effect("finds that a vacant session has ended unseen, and opens another one", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      let once = true
      fake.fault = (sql, session) => {
        if (once && sql.startsWith("SET SESSION")) {
          once = false
          fake.kill(session.id)
        }
        return undefined
      }
      yield* hold(backend, "key")
    }))
})

describe("a connection", () => {
  it.effect("that ends before it is known is not counted", () =>
    Effect.gen(function*() {
      const ended: Wire = {
        threadId: 1,
        prepares: false,
        send: () => {},
        execute: () => {},
        onClose: (listener) => listener(notConnected("it is gone already")),
        quit: Effect.void,
        destroy: () => {}
      }
      const dial = yield* MysqlDial.make({ connect: Effect.succeed(ended) }, 1)
      for (let i = 0; i < 3; i++) {
        const error = yield* Effect.flip(
          dial.open(Duration.seconds(5), { onClose: () => {}, onStall: () => {} }, () => {})
        )
        assert.strictEqual(error.reason, "Unreachable")
        assert.isFalse(dial.isFull())
      }
    }))

  it.effect("that was silent twice is given up a ttl after its last answer, not after the first silence", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "key", "30 seconds")
      const session = firstSession(fake)
      const silence = Effect.gen(function*() {
        session.frozen = true
        const renewing = yield* start(Effect.exit(backend.renew(request)))
        yield* TestClock.adjust("5 seconds")
        yield* Fiber.join(renewing)
      })
      yield* TestClock.adjust("10 seconds")
      yield* silence
      fake.thaw(session)
      yield* turns
      yield* TestClock.adjust("9 seconds")
      yield* silence
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(request.losses, [], "31 seconds after the first answer, 21 after the last")
      fake.thaw(session)
      yield* turns
      expectSome(yield* backend.renew(request))
    }))

  it.effect("that looks after the server and was cut says nothing about the server", () =>
    Effect.gen(function*() {
      const { backend, fake, holder, other } = yield* contended("key")
      const request = attempt("key")
      const waiting = yield* start(backend.acquire(request))
      yield* settle
      let cuts = 0
      fake.fault = (sql, session) => {
        if (sql === "SELECT CONNECTION_ID() & 4294967295 AS a" && cuts === 0) {
          cuts++
          fake.kill(session.id)
        }
        return undefined
      }
      yield* settle
      assert.strictEqual(cuts, 1)
      assert.isUndefined(waiting.pollUnsafe(), "it waits on")
      yield* other.release(holder)
      yield* Fiber.join(waiting)
      assert.isTrue(yield* backend.release(request))
      assert.isTrue(Option.isNone(yield* backend.renew(request)))
    }))
})
