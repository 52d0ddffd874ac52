import { Lock, LockBackend } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as FakeServer from "./FakeServer.ts"
import {
  alone,
  asked,
  backendOf,
  contended,
  expectSome,
  firstSession,
  handedOver,
  hold,
  lineUp,
  newRequest,
  start,
  turns
} from "./support.ts"

describe("the line", () => {
  it.effect("a hand-over is two statements", () =>
    Effect.gen(function*() {
      const { backend, fake, request: first } = yield* handedOver("key")
      const { request: second, waiting: waitingToo } = yield* lineUp(backend, "key")
      yield* backend.release(first)
      yield* Fiber.join(waitingToo)
      // The connections are there now.
      const before = asked(fake)
      const { waiting: waitingLast } = yield* lineUp(backend, "key")
      yield* backend.release(second)
      yield* Fiber.join(waitingLast)
      assert.strictEqual(asked(fake) - before, 2, "a wait and a release")
    }))

  it.effect("a program that gives a key to the line goes to its end with one statement", () =>
    Effect.gen(function*() {
      const { backend, fake, other, request: first } = yield* handedOver("key")
      const theirs = yield* start(other.acquire(newRequest("key")))
      yield* turns
      const tries = asked(fake, "GET_LOCK('key', 0)")
      // As core does: the next one's request goes out together with the release before it.
      const next = newRequest("key")
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
      yield* start(backend.acquire(newRequest("key")))
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

  it.effect("a wait that is given up ends with its connection, and the server is told", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* contended("key")
      yield* hold(backend, "own")
      const before = fake.sessions().length
      const { request, waiting } = yield* lineUp(backend, "key")
      assert.strictEqual(fake.sessions().length, before + 1)
      yield* Fiber.interrupt(waiting)
      assert.strictEqual(yield* backend.release(request), "unknown")
      yield* turns
      assert.strictEqual(fake.waiters("key"), 0)
      assert.strictEqual(fake.sessions().length, before)
      assert.strictEqual(asked(fake, "KILL"), 1, "the server knows of no such session")
    }))

  it.effect("the release of a wait is answered when the server has ended the session, which may still get the lock", () =>
    Effect.gen(function*() {
      const { backend, fake, holder, other } = yield* contended("key")
      const { request, waiting } = yield* lineUp(backend, "key")
      fake.slowToEnd = true
      yield* Fiber.interrupt(waiting)
      const releasing = yield* start(backend.release(request))
      yield* TestClock.adjust("100 millis")
      yield* other.release(holder)
      yield* turns
      assert.isDefined(fake.holder("key"), "the server granted it to the session that is left")
      assert.isUndefined(releasing.pollUnsafe())
      fake.slowToEnd = false
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(releasing), "unknown")
      expectSome(yield* other.tryAcquire(newRequest("key")))
    }))

  it.effect("the release of a wait is answered within the command timeout, and when KILL is not allowed", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* contended("key")
      fake.slowToEnd = true
      const first = yield* lineUp(backend, "key")
      yield* Fiber.interrupt(first.waiting)
      const releasing = yield* start(backend.release(first.request))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* Fiber.join(releasing), "unknown")
      fake.fault = (sql) => sql.startsWith("KILL") ? FakeServer.serverError(1095) : undefined
      const second = yield* lineUp(backend, "key")
      yield* Fiber.interrupt(second.waiting)
      assert.strictEqual(yield* backend.release(second.request), "unknown")
    }))

  it.effect("a grant that raced with the interruption is released with its connection", () =>
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
      yield* backend.release(request)
      assert.isUndefined(fake.holder("key"))
    }))

  it.effect("the next wait of this program stands behind the release, on the same connection", () =>
    Effect.gen(function*() {
      const { backend, fake, other, request: first } = yield* handedOver("key")
      yield* hold(backend, "own")
      const before = fake.sessions().length
      let current = first
      for (let round = 0; round < 5; round++) {
        const theirs = yield* start(other.acquire(newRequest("key")))
        yield* turns
        const next = newRequest("key")
        const releasing = yield* start(backend.release(current))
        const waitingNext = yield* start(backend.acquire(next))
        assert.strictEqual(yield* Fiber.join(releasing), "released")
        yield* Fiber.join(theirs)
        yield* turns
        assert.strictEqual(fake.waiters("key"), 1)
        fake.kill(fake.holder("key") ?? 0)
        yield* Fiber.join(waitingNext)
        current = next
      }
      assert.isAtMost(fake.sessions().length, before + 1, "the other's connection may be a new one")
    }))

  it.effect("a wait that another session ended begins again, at the end of the line", () =>
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
      assert.strictEqual(yield* backend.release(request), "released")
    }))

  it.effect("a wait that was ended just after its grant leaves no lock behind, and begins again on another session", () =>
    Effect.gen(function*() {
      for (const errno of [1317, 3024, 1969]) {
        const { backend, fake } = yield* contended("key")
        const ended: Array<number> = []
        fake.fault = (sql, session) => {
          if (sql.includes("31536000") && ended.length === 0) {
            ended.push(session.id)
            fake.steal("key")
            fake.grant("key", session)
            return FakeServer.serverError(errno)
          }
          return undefined
        }
        const { request, waiting } = yield* lineUp(backend, "key")
        yield* TestClock.adjust("10 millis")
        yield* Fiber.join(waiting)
        assert.notInclude(ended, fake.holder("key"))
        assert.strictEqual(yield* backend.release(request), "released")
        assert.isUndefined(fake.holder("key"), "one release is enough")
      }
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
      assert.strictEqual(yield* backend.release(request), "released")
    }))

  it.effect("one that has waited is not watched any more: a silence that is shorter than the ttl costs nothing", () =>
    Effect.gen(function*() {
      const { backend, fake, holder, other } = yield* contended("key")
      const { request, waiting } = yield* lineUp(backend, "key")
      yield* TestClock.adjust("10 seconds")
      yield* other.release(holder)
      yield* Fiber.join(waiting)
      expectSome(yield* backend.renew(request, {}))
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
      const waiting = yield* start(backend.acquire(newRequest("key")))
      yield* turns
      yield* TestClock.adjust("5 seconds")
      const error = yield* Effect.flip(Fiber.join(waiting))
      assert.strictEqual(error.reason, "Rejected")
      assert.include(error.message, "no waiting here")
    }))

  it.effect("an error that says nothing about the lock is reported, and the lock is released", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = newRequest("key")
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
        assert.strictEqual((yield* backend.tryAcquire(newRequest("key")))._tag, "None")
      }
    }))

  it.effect("a request of which nothing was sent is released without asking the server", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      yield* hold(backend, "a")
      const session = firstSession(fake)
      session.frozen = true
      yield* start(backend.tryAcquire(newRequest("b")))
      yield* turns
      const request = newRequest("c")
      const queued = yield* start(backend.tryAcquire(request))
      yield* turns
      yield* Fiber.interrupt(queued)
      assert.strictEqual(yield* backend.release(request), "gone", "at once, though the server is silent")
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
      assert.strictEqual(yield* backend.release(request), "gone")
      assert.strictEqual(fake.sessions().length, before)
    }))

  it.effect("a session that ends while a lease is released tells nothing, and is no loss", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const request = yield* hold(backend, "a")
      const session = firstSession(fake)
      session.frozen = true
      const releasing = yield* start(backend.release(request))
      fake.kill(session.id)
      assert.strictEqual(yield* Fiber.join(releasing), "unknown")
      assert.deepStrictEqual(request.losses, [])
    }))

  it.effect("two attempts of one program never ask one session for the same key", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const first = newRequest("key")
      const second = newRequest("key")
      expectSome(yield* backend.tryAcquire(first))
      assert.strictEqual((yield* backend.tryAcquire(newRequest("key")))._tag, "None")
      const releasing = yield* start(backend.release(first))
      const acquired = yield* backend.acquire(second)
      assert.strictEqual(yield* Fiber.join(releasing), "released")
      assert.isAbove(Number(acquired.tokens.first), 0)
      assert.strictEqual((yield* backend.tryAcquire(newRequest("key")))._tag, "None")
      assert.strictEqual(yield* backend.release(second), "released")
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
      assert.strictEqual((yield* backend.tryAcquire(newRequest("a")))._tag, "None")
      fake.fault = () => undefined
      assert.strictEqual(yield* backend.release(request), "released")
      yield* hold(backend, "a")
    }))

  it.effect("no request takes over a lock whose release was refused", () =>
    Effect.gen(function*() {
      const { backend, fake } = yield* alone
      const [first, second] = [newRequest("a"), newRequest("a")]
      expectSome(yield* backend.tryAcquire(first))
      fake.fault = (sql) => sql.includes("RELEASE_LOCK") ? FakeServer.serverError(1317) : undefined
      const [released, grant] = yield* Effect.all([backend.release(first), backend.tryAcquire(second)], {
        concurrency: 2
      })
      assert.strictEqual(released, "unknown", "the session was closed, and the lock with it")
      expectSome(grant)
      fake.fault = () => undefined
      assert.strictEqual(yield* backend.release(second), "released")
    }))

  it.effect("a try that comes together with the release gets the key", () =>
    Effect.gen(function*() {
      const { backend } = yield* alone
      const first = yield* hold(backend, "key")
      const [released, next] = yield* Effect.all([backend.release(first), backend.tryAcquire(newRequest("key"))], {
        concurrency: 2
      })
      assert.strictEqual(released, "released")
      expectSome(next)
    }))
})
