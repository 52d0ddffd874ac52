import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Option, Scope } from "effect"
import { TestClock } from "effect/testing"
import { MysqlError } from "../src/internal/MysqlError.ts"
import * as MysqlSession from "../src/internal/MysqlSession.ts"
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
  turns
} from "./support.ts"

describe("the shared session", () => {
  it.effect(
    "10,000 locks that are free live on one connection, and cost at most one statement per second",
    () =>
      Effect.gen(function*() {
        const { backend, fake } = yield* alone
        const requests = Array.from({ length: 10_000 }, (_, i) => attempt(`key/${i}`))
        const grants = yield* Effect.forEach(requests, backend.tryAcquire, { concurrency: "unbounded" })
        assert.isTrue(grants.every(Option.isSome))
        assert.strictEqual(fake.sessions().length, 1, "one connection")
        const before = asked(fake)
        for (let second = 0; second < 60; second++) {
          yield* TestClock.adjust("1 seconds")
          const due = requests.filter((_, i) => i % 10 === second % 10)
          const renewed = yield* Effect.forEach(due, backend.renew, { concurrency: "unbounded" })
          assert.isTrue(renewed.every(Option.isSome), "every lease is renewed")
        }
        assert.isAtMost(asked(fake) - before, 60)
        assert.isAtLeast(asked(fake) - before, 6, "the session does not fall asleep")
        assert.strictEqual(fake.sessions().length, 1, "still one connection")
      }),
    30_000
  )

  it.effect("its wait_timeout is the ttl in whole seconds, and the grant says so", () =>
    Effect.gen(function*() {
      for (
        const [ttl, seconds] of [["300 millis", 1], ["2 seconds", 2], ["2500 millis", 3], ["31 seconds", 40]] as const
      ) {
        const { backend, fake } = yield* alone
        const grant = expectSome(yield* backend.tryAcquire(attempt("key", ttl)))
        assert.strictEqual(Duration.toSeconds(grant.ttl), seconds, ttl)
        assert.deepStrictEqual(fake.sessions().map((session) => session.waitTimeout), [seconds], ttl)
      }
    }))

  it("many ttls have few sessions, none shorter than the ttl, and short ones are exact", () => {
    const all = Array.from({ length: 3600 }, (_, i) => i + 1)
    const rungs = all.map((seconds) => MysqlSession.secondsFor(Duration.seconds(seconds)))
    all.forEach((seconds, i) => assert.isAtLeast(rungs[i] ?? 0, seconds))
    all.forEach((seconds, i) => assert.isAtMost(rungs[i] ?? 0, seconds * 1.4))
    assert.deepStrictEqual(rungs.slice(0, 10), all.slice(0, 10))
    assert.isAtMost(new Set(rungs).size, 40)
    assert.strictEqual(MysqlSession.secondsFor(Duration.days(365)), MysqlSession.longest)
  })

  it.effect("a grant on a session that is in use has the time of its own statement", () =>
    Effect.gen(function*() {
      const { backend } = yield* alone
      const first = expectSome(yield* backend.tryAcquire(attempt("a")))
      yield* TestClock.adjust("3 seconds")
      const second = expectSome(yield* backend.tryAcquire(attempt("b")))
      assert.strictEqual(second.validFrom - first.validFrom, 3_000_000_000n)
    }))

  it.effect("a session that the server may be ending just now is not used any more", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const first = yield* hold(backend, "a", "4 seconds")
      yield* backend.release(first)
      const [old] = fake.sessions()
      yield* TestClock.adjust("3900 millis")
      yield* hold(backend, "b", "4 seconds")
      assert.notInclude(fake.sessions(), old)
    }))

  it.effect("a vacant session is closed", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "a", "10 minutes")
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(fake.sessions().length, 1, "who holds something is not vacant")
      yield* backend.release(request)
      yield* TestClock.adjust("2 minutes")
      yield* turns
      assert.strictEqual(fake.sessions().length, 0)
      yield* hold(backend, "b")
    }))

  it.effect("an attempt on a session that ended unseen goes to another one", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const first = yield* hold(backend, "a")
      let once = true
      fake.fault = (sql, session) => {
        if (once && sql.includes("GET_LOCK")) {
          once = false
          fake.kill(session.id)
        }
        return undefined
      }
      yield* hold(backend, "b")
      assert.deepStrictEqual(first.losses, ["session"], "what it held is lost, and its holder is told")
      assert.isTrue(Option.isNone(yield* backend.renew(first)))
      assert.isFalse(yield* backend.release(first))
    }))
})

describe("the probe", () => {
  it.effect("finds a lock that is gone from a session that lives", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const robbed = attempt("a")
      const other = attempt("b")
      expectSome(yield* backend.tryAcquire(robbed))
      expectSome(yield* backend.tryAcquire(other))
      fake.steal("a")
      yield* TestClock.adjust("10 seconds")
      expectSome(yield* backend.renew(other))
      assert.deepStrictEqual(robbed.losses, ["taken"], "the renewal of one lease looks at the others, too")
      assert.isTrue(Option.isNone(yield* backend.renew(robbed)))
      assert.isFalse(yield* backend.release(robbed))
      assert.deepStrictEqual(other.losses, [])
    }))

  it.effect("looks at the lease that asks for it, and at the others in turn", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const requests = Array.from({ length: 200 }, (_, i) => attempt(`key/${i}`))
      yield* Effect.forEach(requests, backend.tryAcquire)
      const last = requests[199]
      const first = requests[0]
      assert(first && last)
      fake.steal("key/199")
      yield* TestClock.adjust("10 seconds")
      assert.isTrue(Option.isNone(yield* backend.renew(last)))
      fake.steal("key/150")
      for (let i = 0; i < 3; i++) {
        yield* TestClock.adjust("10 seconds")
        expectSome(yield* backend.renew(first))
      }
      assert.deepStrictEqual(requests[150]?.losses, ["taken"], "found within as many probes as it takes")
    }))

  it.effect("finds a session that was changed for another one", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "a")
      fake.idShift = 1000
      yield* TestClock.adjust("10 seconds")
      assert.isTrue(Option.isNone(yield* backend.renew(request)))
      assert.deepStrictEqual(request.losses, ["session"])
    }))
})

describe("a server that does not answer", () => {
  it.effect("a stall that is shorter than the ttl costs no lease, and new locks go to another connection", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "a")
      const session = firstSession(fake)
      session.frozen = true
      const tried = attempt("b")
      const failing = yield* start(backend.tryAcquire(tried))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Effect.flip(Fiber.join(failing))).reason, "Timeout")
      yield* hold(backend, "c")
      assert.strictEqual(fake.sessions().length, 2)
      const givingBack = yield* start(Effect.flip(backend.release(tried)))
      const renewing = yield* start(Effect.flip(backend.renew(request)))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(givingBack)).reason, "Timeout", "a give-back without an answer is not done")
      assert.strictEqual((yield* Fiber.join(renewing)).reason, "Timeout", "an overdue renewal is an error, not a loss")
      fake.thaw(session)
      yield* turns
      assert.strictEqual(
        fake.holder("b"),
        undefined,
        "the attempt that was given up is given back when the answer comes"
      )
      assert.deepStrictEqual(request.losses, [])
      expectSome(yield* backend.renew(request))
      assert.isTrue(yield* backend.release(request))
    }))

  it.effect("a stall that outlasts the ttl is a loss, and is told", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "a")
      const session = firstSession(fake)
      yield* TestClock.adjust("6 seconds")
      session.frozen = true
      const renewing = yield* start(Effect.flip(backend.renew(request)))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(renewing)
      yield* TestClock.adjust("18 seconds")
      assert.deepStrictEqual(request.losses, [])
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual(request.losses, ["session"])
      assert.isFalse(yield* backend.release(request), "the session is gone, and the lock with it")
      assert.notInclude(fake.sessions(), session)
    }))

  it.effect("a session that holds nothing is given up at once", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const earlier = yield* hold(backend, "a")
      yield* backend.release(earlier)
      const request = attempt("a")
      const session = firstSession(fake)
      session.frozen = true
      const failing = yield* start(backend.tryAcquire(request))
      yield* TestClock.adjust("5 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.await(failing)))
      assert.isFalse(yield* backend.release(request))
      assert.notInclude(fake.sessions(), session)
    }))

  it.effect("the command timeout is never longer than the ttl", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      yield* hold(backend, "a", "2 seconds")
      const session = firstSession(fake)
      session.frozen = true
      const failing = yield* start(backend.tryAcquire(attempt("b", "2 seconds")))
      yield* TestClock.adjust("2 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.await(failing)))
    }))

  it.effect("a wait ends when the server stops answering anybody, within the command timeout", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* contended("key")
      const { request, waiting } = yield* lineUp(backend, "key")
      yield* TestClock.adjust("1 minutes")
      assert.isUndefined(waiting.pollUnsafe(), "it waits while the server answers")
      fake.sessions().forEach((session) => {
        session.frozen = true
      })
      yield* TestClock.adjust("5 seconds")
      const error = yield* Effect.flip(Fiber.join(waiting))
      assert.strictEqual(error.reason, "Unreachable")
      assert.isFalse(yield* backend.release(request))
    }))
})

describe("connections", () => {
  it.effect("the limit is a clear error, never a hang", () =>
    Effect.gen(function*() {
      const { backend: _, fake, other, holder } = yield* contended("key/0")
      const backend = yield* backendOf(fake, { connectionLimit: 4 })
      const keys = ["key/0", "key/1", "key/2"]
      yield* Effect.forEach(keys.slice(1), (key) => other.tryAcquire(attempt(key)))
      const own = yield* hold(backend, "own")
      const waits = yield* Effect.forEach(keys, (key) => {
        const request = attempt(key)
        return Effect.map(start(backend.acquire(request)), (fiber) => ({ request, fiber }))
      })
      yield* turns
      const last = waits[2]
      assert(last)
      const error = yield* Effect.flip(Fiber.join(last.fiber))
      assert.strictEqual(error.reason, "Rejected")
      assert.include(error.message, "connectionLimit")
      assert.isFalse(yield* backend.release(last.request))
      yield* other.release(holder)
      const first = waits[0]
      assert(first)
      yield* Fiber.join(first.fiber)
      assert.isTrue(yield* backend.release(first.request))
      assert.isTrue(yield* backend.release(own))
    }))

  it.effect("the connection of a wait is used again", () =>
    Effect.gen(function*() {
      const { backend, fake, other } = yield* contended("key")
      for (let round = 0; round < 5; round++) {
        const holder = yield* hold(other, "other")
        const { request, waiting } = yield* lineUp(backend, "other")
        yield* other.release(holder)
        yield* Fiber.join(waiting)
        assert.isTrue(yield* backend.release(request))
      }
      assert.isAtMost(fake.sessions().length, 3, "one of the other's, one shared, one for waits")
    }))

  it.effect("a server that refuses connections fails the build with its words", () =>
    Effect.gen(function*() {
      for (const [errno, reason] of [[1040, "Rejected"], [1045, "Unauthorized"], [1049, "Rejected"]] as const) {
        const fake = FakeServer.make()
        fake.refuse = FakeServer.serverError(errno, `words of ${errno}`)
        const error = yield* Effect.flip(Effect.scoped(backendOf(fake)))
        assert.strictEqual(error.reason, reason)
        assert.include(error.message, `words of ${errno}`)
      }
      const fake = FakeServer.make()
      fake.refuse = new MysqlError({ code: "ECONNREFUSED", message: "connect ECONNREFUSED" })
      assert.strictEqual((yield* Effect.flip(Effect.scoped(backendOf(fake)))).reason, "Unreachable")
    }))

  it.effect("a server that accepts and says nothing fails the build within the command timeout", () =>
    Effect.gen(function*() {
      const client = { connect: Effect.never }
      const fake = { ...FakeServer.make(), client }
      const building = yield* start(Effect.flip(Effect.scoped(backendOf(fake, { commandTimeout: "2 seconds" }))))
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual((yield* Fiber.join(building)).reason, "Unreachable")
    }))

  it.effect("the scope closes them all", () =>
    Effect.gen(function*() {
      const { fake, other: _ } = yield* contended("key")
      const scope = yield* Scope.make()
      const before = fake.sessions().length
      const backend = yield* Scope.provide(backendOf(fake), scope)
      yield* Effect.forkIn(backend.acquire(attempt("key")), scope)
      yield* hold(backend, "a")
      yield* TestClock.adjust("10 seconds")
      assert.isAbove(fake.sessions().length, before + 1)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(fake.sessions().length, before)
      assert.strictEqual(fake.waiters("key"), 0)
      const late = yield* Effect.flip(backend.tryAcquire(attempt("b")))
      assert.include(late.message, "closed")
    }))
})
