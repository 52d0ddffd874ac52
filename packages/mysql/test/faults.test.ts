/**
 * Sessions that end, answers that fail and requests that are released at the worst moment.
 */
import { assert, describe, it, vi } from "@effect/vitest"
import { Effect, Exit, Fiber, Option } from "effect"
import type { Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Client, Wire } from "../src/internal/client.ts"
import { notConnected } from "../src/internal/errors.ts"
import * as FakeServer from "./FakeServer.ts"
import {
  alone,
  backendOf,
  contended,
  endOnce,
  expectSome,
  firstSession,
  handedOver,
  hold,
  lineUp,
  newRequest,
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

// Thousands of small worlds; a busy machine takes its time.
vi.setConfig({ testTimeout: 60_000 })

describe("at every step", () => {
  for (const way of ["free", "waited for"] as const) {
    /** An attempt under way, and what lets it go on. */
    const begun = Effect.fnUntraced(function*(operations: number) {
      const { backend, fake, holder, other } = yield* contended("key")
      if (way === "free") yield* other.release(holder)
      const request = newRequest("key")
      const acquiring = yield* start(yielding(backend.acquire(request), operations))
      if (way === "waited for") {
        yield* settle
        assert.strictEqual(fake.waiters("key"), 1)
        yield* start(other.release(holder))
      }
      return { acquiring, backend, fake, request }
    })

    it.effect(`killed: nothing stays held, and what is lost is not believed to be held (${way})`, () =>
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
          assert.isUndefined(fake.holder("key"), `released: step ${step}`)
          assert.strictEqual(fake.waiters("key"), 0, `nothing waits: step ${step}`)
        })
      ))

    it.effect(`released: it never holds the key (${way})`, () =>
      atEveryStep((step, operations) =>
        Effect.gen(function*() {
          const { acquiring, backend, fake, request } = yield* begun(operations)
          yield* pass(step)
          const releasing = yield* start(
            Effect.andThen(Fiber.interrupt(acquiring), yielding(backend.release(request), operations))
          )
          yield* settle
          assert.isDefined(releasing.pollUnsafe(), `it is released: step ${step}`)
          assert.isDefined(acquiring.pollUnsafe(), `it ends: step ${step}`)
          assert.isUndefined(fake.holder("key"), `step ${step}`)
          assert.strictEqual(fake.waiters("key"), 0, `nothing waits: step ${step}`)
        })
      ))
  }

  it.effect("released: it stands in no line", () =>
    atEveryStep((step, operations) =>
      Effect.gen(function*() {
        const { backend, fake, holder, other } = yield* contended("key")
        const request = newRequest("key")
        const acquiring = yield* start(yielding(backend.acquire(request), operations))
        yield* pass(2 * step)
        const releasing = yield* start(Effect.andThen(Fiber.interrupt(acquiring), backend.release(request)))
        yield* settle
        assert.isDefined(releasing.pollUnsafe(), `it is released: step ${step}`)
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
        const backend = yield* backendOf(fake, { connectionLimit: 2 })
        const earlier = yield* hold(backend, "free")
        yield* backend.release(earlier)
        yield* start(backend.acquire(newRequest("key/1")))
        yield* settle
        const taking = yield* start(yielding(backend.tryAcquire(newRequest("free")), operations))
        yield* pass(step)
        yield* start(backend.acquire(newRequest("key/2")))
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
      const taken = newRequest("taken")
      fake.fault = (sql, session) => {
        if (sql.includes("UNION") && sql.includes("'refused'")) {
          fake.grant("taken", session)
          return FakeServer.serverError(3058)
        }
        if (sql.includes("IS_USED_LOCK('first')")) session.frozen = true
        return undefined
      }
      yield* start(backend.tryAcquire(newRequest("first")))
      const acquiring = yield* start(backend.tryAcquire(taken))
      yield* start(backend.tryAcquire(newRequest("refused")))
      yield* turns
      assert.isDefined(fake.holder("taken"))
      yield* Fiber.interrupt(acquiring)
      const releasing = yield* start(backend.release(taken))
      yield* turns
      fake.sessions().forEach(fake.thaw)
      yield* Fiber.join(releasing)
      assert.isUndefined(fake.holder("taken"))
    }))

  it.effect("that shared a statement which failed may have been released by it, which is no loss", () =>
    Effect.gen(function*() {
      for (const errno of [3058, 1213, 1317]) {
        const { backend, fake } = yield* alone
        const [request, kept] = [yield* hold(backend, "key"), yield* hold(backend, "kept")]
        // The server releases the lock before it refuses what stands behind the release.
        fake.fault = (sql) => {
          if (sql.includes("UNION") && sql.includes("RELEASE_LOCK('key')")) {
            fake.steal("key")
            return FakeServer.serverError(errno)
          }
          return undefined
        }
        const released = yield* Effect.all([request, kept].map(backend.release), { concurrency: 2 })
        assert.deepStrictEqual(released, ["unknown", "released"])
        assert.deepStrictEqual(request.losses, [])
      }
    }))

  it.effect("whose release was refused may have been released by it, which is no loss", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "key")
      fake.fault = (sql) => {
        if (sql.includes("RELEASE_LOCK")) {
          fake.steal("key")
          return FakeServer.serverError(1317)
        }
        return undefined
      }
      assert.strictEqual((yield* Effect.flip(backend.release(request))).reason, "Rejected")
      fake.fault = () => undefined
      assert.strictEqual(yield* backend.release(request), "unknown")
    }))

  it.effect("finds that a vacant session has ended unseen, and opens another one", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      endOnce(fake, "SET SESSION wait_timeout")
      yield* hold(backend, "key")
    }))
})

describe("a table of tokens", () => {
  const counting = Effect.gen(function*() {
    const fake = FakeServer.make()
    return { fake, backend: yield* backendOf(fake, { fencing: { table: "tokens" } }) }
  })

  it.effect("that holds no whole numbers is an error of its own request", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* counting
      for (const token of ["1.00", "-1", "", null]) {
        fake.counted = (name, last) => name === "bad" ? token : `${last}`
        const [good, bad] = [newRequest("good"), newRequest("bad")]
        const taking = yield* start(backend.tryAcquire(good))
        const failing = yield* start(Effect.flip(backend.tryAcquire(bad)))
        yield* turns
        assert.isDefined(failing.pollUnsafe(), "it is told at once")
        const error = yield* Fiber.join(failing)
        assert.strictEqual(error.reason, "Protocol")
        expectSome(yield* Fiber.join(taking))
        assert.strictEqual(yield* backend.release(bad), "released")
        assert.strictEqual(yield* backend.release(good), "released")
      }
    }))

  for (
    const [what, fault] of [["a defect", Effect.die("a broken driver")], ["an interruption", Effect.interrupt]] as const
  ) {
    it.effect(`outlives ${what} of what gives it its connection`, () =>
      Effect.gen(function*() {
        const { backend, fake } = yield* counting
        const request = yield* hold(backend, "key")
        fake.sessions().filter(({ statements }) => statements.some((sql) => sql.includes("lock_wait_timeout"))).forEach(
          ({ id }) => fake.kill(id)
        )
        fake.handshake = fault
        const exits = yield* start(Effect.exit(Effect.all([1, 2].map((spare) => backend.renew(request, { spare })), {
          concurrency: 2,
          mode: "result"
        })))
        yield* turns
        assert.isDefined(exits.pollUnsafe(), "those that ask are told at once")
        fake.handshake = Effect.void
        const renewing = yield* start(backend.renew(request, { spare: 1 }))
        yield* turns
        assert.isDefined(renewing.pollUnsafe(), "the next ones are served")
        assert.isDefined(expectSome(yield* Fiber.join(renewing)).tokens)
      }))
  }
})

describe("a connection", () => {
  it.effect("that ends before it is known is not counted", () =>
    Effect.gen(function*() {
      const ended: Wire = {
        threadId: 1,
        send: () => {},
        onClose: (listener) => queueMicrotask(() => listener(notConnected("it is gone already"))),
        quit: Effect.void,
        destroy: () => {}
      }
      const fake = FakeServer.make()
      let gone = false
      const client: Client = {
        ...fake.client,
        connect: (attempt) => gone ? Effect.succeed(ended) : fake.client.connect(attempt)
      }
      const backend = yield* backendOf({ ...fake, client }, { connectionLimit: 2 })
      yield* hold(backend, "own")
      gone = true
      for (let i = 0; i < 5; i++) {
        assert.strictEqual(
          (yield* Effect.flip(backend.tryAcquire(newRequest("key", "5 seconds")))).reason,
          "Unreachable"
        )
      }
      gone = false
      yield* hold(backend, "key", "5 seconds")
    }))

  it.effect("that was silent twice is given up a ttl after its last answer, not after the first silence", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "key", "30 seconds")
      const session = firstSession(fake)
      const silence = Effect.gen(function*() {
        session.frozen = true
        const renewing = yield* start(Effect.exit(backend.renew(request, {})))
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
      expectSome(yield* backend.renew(request, {}))
    }))

  it.effect("that looks after the server and was cut says nothing about the server", () =>
    Effect.gen(function*() {
      const { backend, fake, holder, other } = yield* contended("key")
      const request = newRequest("key")
      const waiting = yield* start(backend.acquire(request))
      yield* settle
      let cuts = 0
      fake.fault = (sql, session) => {
        if (sql.startsWith("SELECT CONCAT_WS") && cuts === 0) {
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
      assert.strictEqual(yield* backend.release(request), "released")
      assert.isTrue(Option.isNone(yield* backend.renew(request, {})))
    }))

  it.effect("that went silent while it was vacant does not carry a wait", () =>
    Effect.gen(function*() {
      const { backend, fake, other, request } = yield* handedOver("key")
      yield* hold(backend, "own")
      const holder = yield* hold(other, "other")
      yield* backend.release(request)
      yield* TestClock.adjust("5 seconds")
      for (const session of fake.sessions()) {
        session.frozen = session.statements.some((sql) => sql.includes("31536000"))
      }
      const next = yield* lineUp(backend, "other")
      yield* TestClock.adjust("5 seconds")
      yield* turns
      assert.strictEqual(fake.waiters("other"), 1, "it waits on another one within the command timeout")
      yield* other.release(holder)
      yield* Fiber.join(next.waiting)
    }))

  it.effect("whose making is a defect does not end the looks after the server", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* contended("key")
      const silence = (is: boolean) =>
        fake.sessions().forEach((session) => {
          session.frozen = is
        })
      for (
        const [handshake, words] of [[Effect.die(new Error("a broken driver")), "a broken driver"], [
          Effect.never,
          ""
        ]] as const
      ) {
        const { request, waiting } = yield* lineUp(backend, "key")
        silence(true)
        fake.handshake = handshake
        yield* TestClock.adjust("5 seconds")
        assert.isDefined(waiting.pollUnsafe(), "it is told within the command timeout")
        assert.include((yield* Effect.flip(Fiber.join(waiting))).message, words)
        silence(false)
        fake.handshake = Effect.void
        yield* backend.release(request)
      }
    }))
})
