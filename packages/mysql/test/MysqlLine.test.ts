import { Lock, LockBackend } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
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

describe("the line", () => {
  it.effect("a hand-over is two statements", () =>
    Effect.gen(function*() {
      const { backend, fake, holder, other } = yield* contended("key")
      // The connections are there already, as they are after the first hand-over.
      const { request: earlier, waiting: leaving } = yield* lineUp(backend, "key")
      yield* Fiber.interrupt(leaving)
      yield* backend.release(earlier)
      const next = attempt("key")
      const count = () => asked(fake)
      const before = count()
      const waiting = yield* start(backend.acquire(next))
      yield* turns
      yield* other.release(holder)
      yield* Fiber.join(waiting)
      // It tries before it waits, because nobody of its own program holds the key.
      assert.strictEqual(count() - before, 3)
      const { request: third, waiting: waitingToo } = yield* lineUp(backend, "key")
      const settled = count()
      yield* backend.release(next)
      yield* Fiber.join(waitingToo)
      const { waiting: lastOne } = yield* lineUp(backend, "key")
      yield* backend.release(third)
      yield* Fiber.join(lastOne)
      assert.strictEqual(count() - settled, 1 + 2, "a release; then a wait and a release")
    }))

  it.effect("a program that gives a key to the line goes to its end with one statement", () =>
    Effect.gen(function*() {
      const { backend, fake, holder, other } = yield* contended("key")
      const { request: first, waiting } = yield* lineUp(backend, "key")
      yield* other.release(holder)
      yield* Fiber.join(waiting)
      const theirs = yield* start(other.acquire(attempt("key")))
      yield* turns
      const tries = asked(fake, "GET_LOCK('key', 0)")
      // As core does: the next one's request goes out together with the release before it.
      const next = attempt("key")
      yield* start(backend.release(first))
      yield* start(backend.acquire(next))
      yield* Fiber.join(theirs)
      yield* turns
      assert.strictEqual(fake.waiters("key"), 1)
      assert.strictEqual(asked(fake, "GET_LOCK('key', 0)"), tries, "no try before the wait")
    }))

  it.effect("the wait is on the server, on a session that holds nothing", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* contended("key")
      yield* hold(backend, "own")
      yield* start(backend.acquire(attempt("key")))
      yield* turns
      const owner = fake.holder("own")
      const waiting = fake.sessions().filter((session) => session.statements.some((sql) => sql.includes("31536000")))
      assert.strictEqual(waiting.length, 1)
      assert.isTrue(waiting.every((session) => session.id !== owner))
      assert.strictEqual(asked(fake, "31536000"), 1, "asked once, and never again")
      yield* TestClock.adjust("10 minutes")
      yield* turns
      assert.strictEqual(asked(fake, "31536000"), 1, "asked once, and never again")
    }))

  it.effect("a KILL that comes before the wait is sent again", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* contended("key")
      const { request, waiting } = yield* lineUp(backend, "key")
      yield* Fiber.interrupt(waiting)
      fake.missedKills = 2
      const leaving = yield* start(backend.release(request))
      yield* turns
      assert.strictEqual(fake.waiters("key"), 1, "the first KILL found nothing")
      yield* TestClock.adjust("100 millis")
      assert.isFalse(yield* Fiber.join(leaving))
      assert.strictEqual(fake.waiters("key"), 0)
    }))

  it.effect("a grant that raced with the interruption is given back", () =>
    Effect.gen(function*() {
      const { backend, fake, holder, other } = yield* contended("key")
      const { request, waiting } = yield* lineUp(backend, "key")
      const session = fake.sessions().find((session) => session.statements.some((sql) => sql.includes("31536000")))
      assert(session)
      session.frozen = true
      yield* other.release(holder)
      yield* turns
      assert.strictEqual(fake.holder("key"), session.id, "the server granted it, and the answer is on its way")
      yield* Fiber.interrupt(waiting)
      const leaving = yield* start(backend.release(request))
      yield* turns
      fake.thaw(session)
      assert.isTrue(yield* Fiber.join(leaving))
      assert.isUndefined(fake.holder("key"))
      assert.include(fake.sessions(), session, "the connection is used again")
    }))

  it.effect("a session of another server is closed instead of killed: its number means somebody else there", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* contended("key")
      const { request, waiting } = yield* lineUp(backend, "key")
      fake.restartClock()
      yield* Fiber.interrupt(waiting)
      assert.isFalse(yield* backend.release(request))
      assert.strictEqual(asked(fake, "KILL"), 0)
      assert.strictEqual(fake.waiters("key"), 0)
    }))

  it.effect("a wait that somebody else ended begins again, at the end of the line", () =>
    Effect.gen(function*() {
      const { backend, fake, holder, other } = yield* contended("key")
      const { request, waiting } = yield* lineUp(backend, "key")
      for (const errno of [1317, 3024, 3058, 1213, 1969, 1053, 1927]) {
        fake.endWait("key", FakeServer.serverError(errno))
        yield* turns
        yield* TestClock.adjust("2 seconds")
        yield* turns
        assert.strictEqual(fake.waiters("key"), 1, `after ${errno}`)
      }
      fake.endWait("key", null)
      yield* turns
      yield* TestClock.adjust("2 seconds")
      yield* turns
      assert.strictEqual(fake.waiters("key"), 1, "after NULL")
      yield* other.release(holder)
      yield* Fiber.join(waiting)
      assert.isTrue(yield* backend.release(request))
    }))

  it.effect("a wait whose session was killed begins again on another one", () =>
    Effect.gen(function*() {
      const { backend, fake, holder, other } = yield* contended("key")
      const { request, waiting } = yield* lineUp(backend, "key")
      const session = fake.sessions().find((session) => session.statements.some((sql) => sql.includes("31536000")))
      fake.kill(session?.id ?? 0)
      yield* turns
      yield* TestClock.adjust("10 millis")
      yield* turns
      assert.strictEqual(fake.waiters("key"), 1)
      yield* other.release(holder)
      yield* Fiber.join(waiting)
      assert.isTrue(yield* backend.release(request))
    }))

  it.effect("who has waited is not watched any more: a silence that is shorter than the ttl costs nothing", () =>
    Effect.gen(function*() {
      const { backend, fake, holder, other } = yield* contended("key")
      const { request, waiting } = yield* lineUp(backend, "key")
      yield* TestClock.adjust("10 seconds")
      yield* other.release(holder)
      yield* Fiber.join(waiting)
      expectSome(yield* backend.renew(request))
      const stood = fake.sessions().length
      fake.sessions().forEach((session) => {
        session.frozen = true
      })
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(request.losses, [])
      assert.strictEqual(fake.sessions().length, stood)
    }))

  it.effect("a server that ends every wait at once is an error", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* contended("key")
      fake.fault = (sql) => sql.includes("31536000") ? FakeServer.serverError(1317, "no waiting here") : undefined
      const waiting = yield* start(backend.acquire(attempt("key")))
      yield* turns
      yield* TestClock.adjust("5 seconds")
      const error = yield* Effect.flip(Fiber.join(waiting))
      assert.strictEqual(error.reason, "Rejected")
      assert.include(error.message, "no waiting here")
    }))

  it.effect("an error that says nothing about the lock is reported, and the lock is given back", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = attempt("key")
      fake.fault = (sql) => sql.includes("GET_LOCK") ? FakeServer.serverError(1105, "unknown error") : undefined
      assert.strictEqual((yield* Effect.flip(backend.tryAcquire(request))).reason, "Rejected")
      fake.fault = () => undefined
      const before = asked(fake, "RELEASE_LOCK")
      yield* backend.release(request)
      assert.strictEqual(asked(fake, "RELEASE_LOCK") - before, 1)
    }))

  it.effect("a deadlock that a single attempt is told of means that the key is held", () =>
    Effect.gen(function*() {
      for (const errno of [3058, 1213]) {
        const { backend, fake } = yield* alone
        fake.fault = (sql) => sql.includes("GET_LOCK") ? FakeServer.serverError(errno) : undefined
        assert.strictEqual((yield* backend.tryAcquire(attempt("key")))._tag, "None")
      }
    }))

  it.effect("an attempt of which nothing was sent is given back without asking the server", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      yield* hold(backend, "a")
      const session = firstSession(fake)
      session.frozen = true
      yield* start(backend.tryAcquire(attempt("b")))
      yield* turns
      const request = attempt("c")
      const queued = yield* start(backend.tryAcquire(request))
      yield* turns
      yield* Fiber.interrupt(queued)
      assert.isFalse(yield* backend.release(request), "at once, though the server is silent")
      fake.thaw(session)
      yield* turns
      assert.strictEqual(asked(fake, "'c'"), 0)
    }))

  it.effect("a connection that is not ready when its attempt is interrupted is closed", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* contended("key")
      const before = fake.sessions().length
      fake.fault = (sql, session) => {
        if (sql.startsWith("SHOW") && session.id > before) session.frozen = true
        return undefined
      }
      const { request, waiting: opening } = yield* lineUp(backend, "key")
      assert.strictEqual(fake.sessions().length, before + 1)
      yield* Fiber.interrupt(opening)
      assert.isFalse(yield* backend.release(request))
      assert.strictEqual(fake.sessions().length, before)
    }))

  it.effect("an acquire that is given back while it goes on fails, and its connection is used again", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* contended("key")
      const opening = attempt("key")
      const first = yield* start(Effect.flip(backend.acquire(opening)))
      // Until the connection for the wait is there, or is being made.
      while (fake.sessions().length < 3) yield* Effect.yieldNow
      assert.isFalse(yield* backend.release(opening))
      assert.include((yield* Fiber.join(first)).message, "given back")
      const later = attempt("key")
      const second = yield* start(Effect.flip(backend.acquire(later)))
      yield* turns
      fake.endWait("key", null)
      yield* turns
      assert.isFalse(yield* backend.release(later), "between two waits")
      yield* TestClock.adjust("1 seconds")
      assert.include((yield* Fiber.join(second)).message, "given back")
      assert.strictEqual(fake.waiters("key"), 0)
      yield* TestClock.adjust("1 minutes")
      yield* turns
      assert.strictEqual(fake.sessions().length, 1, "whoever holds nothing is closed in the end")
    }))

  it.effect("an acquire that is given back before it was sent fails", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      yield* hold(backend, "a")
      const session = firstSession(fake)
      session.frozen = true
      yield* start(backend.tryAcquire(attempt("b")))
      yield* turns
      const request = attempt("c")
      const queued = yield* start(Effect.flip(backend.acquire(request)))
      yield* turns
      assert.isFalse(yield* backend.release(request))
      assert.include((yield* Fiber.join(queued)).message, "given back")
    }))

  it.effect("a session that ends while a lease is given back answers false, and is no loss", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "a")
      const session = firstSession(fake)
      session.frozen = true
      const releasing = yield* start(backend.release(request))
      fake.kill(session.id)
      assert.isFalse(yield* Fiber.join(releasing))
      assert.deepStrictEqual(request.losses, [])
    }))

  it.effect("two attempts of one program never ask one session for the same key", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const first = attempt("key")
      const second = attempt("key")
      expectSome(yield* backend.tryAcquire(first))
      assert.strictEqual((yield* backend.tryAcquire(attempt("key")))._tag, "None")
      const releasing = yield* start(backend.release(first))
      const acquired = yield* backend.acquire(second)
      assert.isTrue(yield* Fiber.join(releasing))
      assert.isAbove(Number(acquired.fencingToken), 0)
      assert.strictEqual((yield* backend.tryAcquire(attempt("key")))._tag, "None")
      assert.isTrue(yield* backend.release(second))
      assert.isUndefined(fake.holder("key"), "one release is enough")
    }))

  it.effect("fibers of one program that take turns need one connection, however many keys they contend for", () =>
    Effect.gen(function*() {
      const fake = FakeServer.make()
      const lock = Context.get(
        yield* Layer.build(
          Layer.provide(Lock.layer, Layer.effect(LockBackend, backendOf(fake, { connectionLimit: 3 })))
        ),
        Lock
      )
      const sections = Array.from(
        { length: 100 },
        (_, i) => Effect.all([1, 2, 3].map(() => lock.withLock(`key/${i}`, turns)), { concurrency: "unbounded" })
      )
      yield* Effect.all(sections, { concurrency: "unbounded" })
      assert.strictEqual(fake.sessions().length, 1)
    }))

  it.effect("a release that the server refuses is sent again", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "a")
      fake.fault = (sql) => sql.includes("RELEASE_LOCK") ? FakeServer.serverError(1317) : undefined
      assert.strictEqual((yield* Effect.flip(backend.release(request))).reason, "Rejected")
      assert.strictEqual((yield* backend.tryAcquire(attempt("a")))._tag, "None")
      fake.fault = () => undefined
      assert.isTrue(yield* backend.release(request))
      yield* hold(backend, "a")
    }))

  it.effect("nobody takes over a lock whose release was refused", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const [first, second] = [attempt("a"), attempt("a")]
      expectSome(yield* backend.tryAcquire(first))
      fake.fault = (sql) => sql.includes("RELEASE_LOCK") ? FakeServer.serverError(1317) : undefined
      const [released, grant] = yield* Effect.all([backend.release(first), backend.tryAcquire(second)], {
        concurrency: 2
      })
      assert.isFalse(released, "the session was closed, and the lock with it")
      expectSome(grant)
      fake.fault = () => undefined
      assert.isFalse(yield* backend.release(first))
      assert.isTrue(yield* backend.release(second))
    }))

  it.effect("a try that comes together with the release gets the key", () =>
    Effect.gen(function*() {
      const { backend } = yield* alone
      const first = yield* hold(backend, "key")
      const [released, next] = yield* Effect.all([backend.release(first), backend.tryAcquire(attempt("key"))], {
        concurrency: 2
      })
      assert.isTrue(released)
      expectSome(next)
    }))
})
