import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Scope } from "effect"
import { TestClock } from "effect/testing"
import { MysqlError } from "../src/internal/errors.ts"
import * as Session from "../src/internal/session.ts"
import * as FakeServer from "./FakeServer.ts"
import {
  alone,
  asked,
  backendOf,
  contended,
  endOnce,
  expectSome,
  firstSession,
  hold,
  lineUp,
  newRequest,
  start,
  turns
} from "./support.ts"

describe("the shared session", () => {
  it.effect(
    "10,000 locks that are free live on one connection, and cost at most one statement per second",
    () =>
      Effect.gen(function*() {
        const { backend, fake } = yield* alone
        const requests = Array.from({ length: 10_000 }, (_, i) => newRequest(`key/${i}`))
        const grants = yield* Effect.forEach(requests, backend.tryAcquire, { concurrency: "unbounded" })
        assert.isTrue(grants.every(Option.isSome))
        assert.strictEqual(fake.sessions().length, 1, "one connection")
        const before = asked(fake)
        for (let second = 0; second < 60; second++) {
          yield* TestClock.adjust("1 seconds")
          const due = requests.filter((_, i) => i % 10 === second % 10)
          const renewed = yield* Effect.forEach(due, (request) => backend.renew(request, {}), {
            concurrency: "unbounded"
          })
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
        const grant = expectSome(yield* backend.tryAcquire(newRequest("key", ttl)))
        assert.strictEqual(grant.ttl, seconds * 1000, ttl)
        assert.deepStrictEqual(fake.sessions().map((session) => session.waitTimeout), [seconds], ttl)
      }
    }))

  it("many ttls have few sessions, none shorter than the ttl, and short ones are exact", () => {
    const all = Array.from({ length: 3600 }, (_, i) => i + 1)
    const rungs = all.map((seconds) => Session.secondsFor(seconds * 1000))
    all.forEach((seconds, i) => assert.isAtLeast(rungs[i] ?? 0, seconds))
    all.forEach((seconds, i) => assert.isAtMost(rungs[i] ?? 0, seconds * 1.4))
    assert.deepStrictEqual(rungs.slice(0, 10), all.slice(0, 10))
    assert.isAtMost(new Set(rungs).size, 40)
    assert.strictEqual(Session.secondsFor(Session.longest * 1000), Session.longest)
  })

  it.effect("a grant on a session that is in use has the time of its own statement", () =>
    Effect.gen(function*() {
      const { backend } = yield* alone
      const first = expectSome(yield* backend.tryAcquire(newRequest("a")))
      yield* TestClock.adjust("3 seconds")
      const second = expectSome(yield* backend.tryAcquire(newRequest("b")))
      assert.strictEqual(second.validFrom - first.validFrom, 3000)
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
      assert.strictEqual(fake.sessions().length, 1, "a session that holds something is not vacant")
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
      endOnce(fake, "GET_LOCK")
      yield* hold(backend, "b")
      assert.deepStrictEqual(first.losses, ["session"], "what it held is lost, and its holder is told")
      assert.isTrue(Option.isNone(yield* backend.renew(first, {})))
      assert.strictEqual(yield* backend.release(first), "gone")
    }))
})

describe("the probe", () => {
  it.effect("finds a lock that is gone from a session that lives", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const robbed = newRequest("a")
      const other = newRequest("b")
      expectSome(yield* backend.tryAcquire(robbed))
      expectSome(yield* backend.tryAcquire(other))
      fake.steal("a")
      yield* TestClock.adjust("10 seconds")
      expectSome(yield* backend.renew(other, {}))
      assert.deepStrictEqual(robbed.losses, ["taken"], "the renewal of one lease looks at the others, too")
      assert.isTrue(Option.isNone(yield* backend.renew(robbed, {})))
      assert.strictEqual(yield* backend.release(robbed), "gone")
      assert.deepStrictEqual(other.losses, [])
    }))

  it.effect("looks at the lease that asks for it, and at the others in turn", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const requests = Array.from({ length: 200 }, (_, i) => newRequest(`key/${i}`))
      yield* Effect.forEach(requests, backend.tryAcquire)
      const last = requests[199]
      const first = requests[0]
      assert(first && last)
      fake.steal("key/199")
      yield* TestClock.adjust("10 seconds")
      assert.isTrue(Option.isNone(yield* backend.renew(last, {})))
      fake.steal("key/150")
      for (let i = 0; i < 3; i++) {
        yield* TestClock.adjust("10 seconds")
        expectSome(yield* backend.renew(first, {}))
      }
      assert.deepStrictEqual(requests[150]?.losses, ["taken"], "found within as many probes as it takes")
    }))

  it.effect("finds a session that was changed for another one", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "a")
      fake.idShift = 1000
      yield* TestClock.adjust("10 seconds")
      assert.isTrue(Option.isNone(yield* backend.renew(request, {})))
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
      const tried = newRequest("b")
      const failing = yield* start(backend.tryAcquire(tried))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Effect.flip(Fiber.join(failing))).reason, "Timeout")
      yield* hold(backend, "c")
      assert.strictEqual(fake.sessions().length, 2)
      const releasing = yield* start(Effect.flip(backend.release(tried)))
      const renewing = yield* start(Effect.flip(backend.renew(request, {})))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(releasing)).reason, "Timeout", "a release without an answer is not done")
      assert.strictEqual((yield* Fiber.join(renewing)).reason, "Timeout", "an overdue renewal is an error, not a loss")
      fake.thaw(session)
      yield* turns
      assert.strictEqual(
        fake.holder("b"),
        undefined,
        "the request that was given up is released when the answer comes"
      )
      assert.deepStrictEqual(request.losses, [])
      expectSome(yield* backend.renew(request, {}))
      assert.strictEqual(yield* backend.release(request), "released")
    }))

  it.effect("a release that was answered after its caller gave up is not gone", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "a")
      yield* hold(backend, "b")
      const session = firstSession(fake)
      session.frozen = true
      const releasing = yield* start(Effect.flip(backend.release(request)))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(releasing)).reason, "Timeout")
      fake.thaw(session)
      yield* turns
      assert.isUndefined(fake.holder("a"))
      assert.strictEqual(yield* backend.release(request), "released")
    }))

  it.effect("a try is an error within the command timeout, however many handshakes are under way", () =>
    Effect.gen(function*() {
      const { backend: _, fake, other } = yield* contended("key/0")
      const backend = yield* backendOf(fake, { connectionLimit: 100 })
      const keys = Array.from({ length: 60 }, (_, i) => `key/${i}`)
      yield* Effect.forEach(keys.slice(1), (key) => other.tryAcquire(newRequest(key)))
      yield* hold(backend, "own")
      fake.handshake = Effect.never
      yield* Effect.forEach(keys, (key) => start(Effect.exit(backend.acquire(newRequest(key)))))
      yield* turns
      const trying = yield* start(Effect.flip(backend.tryAcquire(newRequest("free", "10 seconds"))))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(trying)).reason, "Unreachable")
    }))

  it.effect("waiters are told within the command timeout that there are no new connections, however many wait", () =>
    Effect.gen(function*() {
      const { fake, other } = yield* contended("key/0")
      const backend = yield* backendOf(fake, { connectionLimit: 100 })
      const keys = Array.from({ length: 60 }, (_, i) => `key/${i}`)
      yield* Effect.forEach(keys.slice(1), (key) => hold(other, key))
      yield* hold(backend, "own")
      fake.handshake = Effect.never
      const waits = yield* Effect.forEach(keys, (key) => start(Effect.flip(backend.acquire(newRequest(key)))))
      yield* turns
      assert.strictEqual(fake.handshakes(), 16)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(waits.filter((fiber) => fiber.pollUnsafe() === undefined).length, 0)
      assert.isTrue((yield* Fiber.joinAll(waits)).every(({ reason }) => reason === "Unreachable"))
    }))

  it.effect("a stall that outlasts the ttl is a loss, and is told", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "a")
      const session = firstSession(fake)
      yield* TestClock.adjust("6 seconds")
      session.frozen = true
      const renewing = yield* start(Effect.flip(backend.renew(request, {})))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(renewing)
      yield* TestClock.adjust("18 seconds")
      assert.deepStrictEqual(request.losses, [])
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual(request.losses, ["session"])
      assert.strictEqual(yield* backend.release(request), "gone", "the session is gone, and the lock with it")
      assert.notInclude(fake.sessions(), session)
    }))

  it.effect("a session that holds nothing is given up at once", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const earlier = yield* hold(backend, "a")
      yield* backend.release(earlier)
      const request = newRequest("a")
      const session = firstSession(fake)
      session.frozen = true
      const failing = yield* start(backend.tryAcquire(request))
      yield* TestClock.adjust("5 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.await(failing)))
      assert.strictEqual(yield* backend.release(request), "gone")
      assert.notInclude(fake.sessions(), session)
    }))

  it.effect("the command timeout is never longer than the ttl", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      yield* hold(backend, "a", "2 seconds")
      const session = firstSession(fake)
      session.frozen = true
      const failing = yield* start(backend.tryAcquire(newRequest("b", "2 seconds")))
      yield* TestClock.adjust("2 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.await(failing)))
    }))

  it.effect("a wait ends when the server stops answering, within the command timeout", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* contended("key")
      const { request, waiting } = yield* lineUp(backend, "key")
      yield* TestClock.adjust("1 minutes")
      assert.isUndefined(waiting.pollUnsafe(), "it waits while the server answers")
      fake.sessions().forEach((session) => {
        session.frozen = true
      })
      fake.handshake = Effect.never
      yield* TestClock.adjust("5 seconds")
      const error = yield* Effect.flip(Fiber.join(waiting))
      assert.strictEqual(error.reason, "Unreachable")
      assert.strictEqual(yield* backend.release(request), "gone")
    }))

  it.effect("a wait goes on when one connection is silent and a new one is not, or there are no more", () =>
    Effect.gen(function*() {
      for (const refuse of [undefined, FakeServer.serverError(1040)]) {
        const { backend, fake, other } = yield* contended("key")
        yield* hold(other, "other")
        yield* hold(backend, "own")
        const { waiting } = yield* lineUp(backend, "key")
        fake.sessions().filter(({ statements }) => statements.some((sql) => sql.includes("'own'"))).forEach(
          (session) => {
            session.frozen = true
          }
        )
        fake.refuse = refuse
        yield* TestClock.adjust("10 seconds")
        assert.isUndefined(waiting.pollUnsafe())
      }
    }))
})

describe("connections", () => {
  it.effect("beyond the limit there is one for a moment, to see whether a server with a silent connection answers", () =>
    Effect.gen(function*() {
      const { fake, holder, other } = yield* contended("key")
      const before = fake.sessions().length
      const backend = yield* backendOf(fake, { connectionLimit: 2 })
      const own = yield* hold(backend, "own")
      const { waiting } = yield* lineUp(backend, "key")
      assert.strictEqual(fake.sessions().length, before + 2)
      for (const session of fake.sessions()) {
        session.frozen = session.id === fake.holder("own")
      }
      const seen = new Set<number>()
      fake.fault = (sql) => {
        if (sql.startsWith("SHOW GLOBAL")) seen.add(fake.sessions().length)
        return undefined
      }
      yield* TestClock.adjust("20 seconds")
      assert.isUndefined(waiting.pollUnsafe(), "the server answers, so it waits on")
      assert.deepStrictEqual([...seen], [before + 3], "one more than the limit")
      yield* turns
      assert.strictEqual(fake.sessions().length, before + 2, "it was closed after its use")
      yield* other.release(holder)
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(own.losses, [])
    }))

  it.effect("beyond the limit waiters stand in line for a connection, first come, first served", () =>
    Effect.gen(function*() {
      const { backend: _, fake, other } = yield* contended("key/0")
      const backend = yield* backendOf(fake, { connectionLimit: 3 })
      const keys = Array.from({ length: 20 }, (_, i) => `key/${i}`)
      yield* Effect.forEach(keys.slice(1), (key) => other.tryAcquire(newRequest(key)))
      const own = yield* hold(backend, "own")
      const before = fake.sessions().length
      const waits = yield* Effect.forEach(keys, (key) => {
        const request = newRequest(key)
        return Effect.map(start(backend.acquire(request)), (fiber) => ({ request, fiber }))
      })
      yield* turns
      assert.strictEqual(fake.sessions().length, before + 2)
      yield* TestClock.adjust("1 minutes")
      assert.isTrue(waits.every(({ fiber }) => fiber.pollUnsafe() === undefined), "none fails")
      // The first ones are served in order; whatever becomes free meanwhile needs no connection of its own.
      assert.deepStrictEqual(keys.map((key) => fake.waiters(key)), keys.map((_, i) => i < 2 ? 1 : 0))
      fake.kill(fake.holder("key/19") ?? 0)
      yield* turns
      yield* TestClock.adjust("2 seconds")
      for (const { fiber, request } of waits) {
        yield* Fiber.join(fiber)
        assert.strictEqual(yield* backend.release(request), "released")
      }
      assert.strictEqual(yield* backend.release(own), "released")
      assert.deepStrictEqual(own.losses, [])
    }))

  it.effect("a key that becomes free is granted though those before it keep their connections", () =>
    Effect.gen(function*() {
      const { fake, holder, other } = yield* contended("key/0")
      const backend = yield* backendOf(fake, { connectionLimit: 2 })
      const busy = yield* hold(other, "key/1")
      yield* lineUp(backend, "key/0")
      const { waiting } = yield* lineUp(backend, "key/1")
      yield* other.release(busy)
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(waiting)
      assert.strictEqual(fake.waiters("key/0"), 1)
      yield* other.release(holder)
    }))

  it.effect("a waiter that leaves the line for a connection lets the next one in", () =>
    Effect.gen(function*() {
      const { fake, other } = yield* contended("key/0")
      const backend = yield* backendOf(fake, { connectionLimit: 2 })
      yield* Effect.forEach(["key/1", "key/2"], (key) => hold(other, key))
      const first = yield* lineUp(backend, "key/0")
      const second = yield* lineUp(backend, "key/1")
      yield* lineUp(backend, "key/2")
      yield* Fiber.interrupt(second.waiting)
      assert.strictEqual(yield* backend.release(second.request), "gone")
      yield* Fiber.interrupt(first.waiting)
      yield* backend.release(first.request)
      yield* turns
      assert.strictEqual(fake.waiters("key/2"), 1)
    }))

  it.effect("a waiter outlasts a server that has no more connections", () =>
    Effect.gen(function*() {
      for (const errno of [1040, 1203, 1226]) {
        const { backend, fake, holder, other } = yield* contended("key")
        yield* hold(backend, "own")
        fake.refuse = FakeServer.serverError(errno)
        const { request, waiting } = yield* lineUp(backend, "key")
        yield* TestClock.adjust("1 minutes")
        assert.isUndefined(waiting.pollUnsafe())
        fake.refuse = undefined
        yield* TestClock.adjust("2 seconds")
        yield* turns
        assert.strictEqual(fake.waiters("key"), 1, "it stands in the server's line")
        yield* other.release(holder)
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* backend.release(request), "released")
      }
    }))

  it.effect("waits occupy at most half of the threads of a pool of threads", () =>
    Effect.gen(function*() {
      const { fake, other } = yield* contended("key/0")
      fake.variables.set("thread_handling", "pool-of-threads")
      fake.variables.set("thread_pool_max_threads", "8")
      const backend = yield* backendOf(fake)
      const keys = Array.from({ length: 20 }, (_, i) => `key/${i}`)
      yield* Effect.forEach(keys.slice(1), (key) => other.tryAcquire(newRequest(key)))
      yield* Effect.forEach(keys, (key) => start(backend.acquire(newRequest(key))))
      yield* turns
      assert.strictEqual(keys.filter((key) => fake.waiters(key) > 0).length, 4)
    }))

  it.effect("at most 16 are made at a time, however many wait", () =>
    Effect.gen(function*() {
      const { fake, other } = yield* contended("key/0")
      const backend = yield* backendOf(fake, { connectionLimit: 100 })
      const keys = Array.from({ length: 90 }, (_, i) => `key/${i}`)
      yield* Effect.forEach(keys.slice(1), (key) => other.tryAcquire(newRequest(key)))
      yield* hold(backend, "own")
      fake.handshake = Effect.sleep("1 seconds")
      yield* Effect.forEach(keys, (key) => start(backend.acquire(newRequest(key))))
      yield* turns
      assert.strictEqual(fake.handshakes(), 16)
      yield* Effect.repeat(Effect.andThen(TestClock.adjust("1 seconds"), turns), { times: 8 })
      assert.isTrue(keys.every((key) => fake.waiters(key) === 1), "and none is late because of it")
    }))

  it.effect("the connection of a wait is used again", () =>
    Effect.gen(function*() {
      const { backend, fake, other } = yield* contended("key")
      for (let round = 0; round < 5; round++) {
        const holder = yield* hold(other, "other")
        const { request, waiting } = yield* lineUp(backend, "other")
        yield* other.release(holder)
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* backend.release(request), "released")
      }
      assert.isAtMost(fake.sessions().length, 3, "one of the other's, one shared, one for waits")
    }))

  it.effect("a server that refuses connections fails the build with its words", () =>
    Effect.gen(function*() {
      for (const [errno, reason] of [[1040, "Unreachable"], [1045, "Unauthorized"], [1049, "Rejected"]] as const) {
        const fake = FakeServer.make()
        fake.refuse = FakeServer.serverError(errno, `words of ${errno}`)
        const building = yield* start(Effect.flip(Effect.scoped(backendOf(fake))))
        yield* TestClock.adjust("6 seconds")
        const error = yield* Fiber.join(building)
        assert.strictEqual(error.reason, reason)
        assert.include(error.message, `words of ${errno}`)
      }
      const fake = FakeServer.make()
      fake.refuse = new MysqlError({ code: "ECONNREFUSED", message: "connect ECONNREFUSED" })
      assert.strictEqual((yield* Effect.flip(Effect.scoped(backendOf(fake)))).reason, "Unreachable")
    }))

  it.effect("the scope closes them all", () =>
    Effect.gen(function*() {
      const { fake, other: _ } = yield* contended("key")
      const scope = yield* Scope.make()
      const before = fake.sessions().length
      const backend = yield* Scope.provide(backendOf(fake), scope)
      yield* Effect.forkIn(backend.acquire(newRequest("key")), scope)
      yield* hold(backend, "a")
      yield* TestClock.adjust("10 seconds")
      assert.isAbove(fake.sessions().length, before + 1)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(fake.sessions().length, before)
      assert.strictEqual(fake.waiters("key"), 0)
      const late = yield* Effect.flip(backend.tryAcquire(newRequest("b")))
      assert.include(late.message, "closed")
    }))
})
