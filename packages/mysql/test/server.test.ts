import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Client } from "../src/internal/client.ts"
import * as FakeServer from "./FakeServer.ts"
import { backendOf, expectSome, hold, newRequest, start, turns } from "./support.ts"

/** How the build fails on a server that is changed so. */
const refusal = (change: (fake: FakeServer.FakeServer) => void, options: Parameters<typeof backendOf>[1] = {}) => {
  const fake = FakeServer.make()
  change(fake)
  return Effect.map(Effect.flip(Effect.scoped(backendOf(fake, options))), (error) => {
    assert.strictEqual(fake.sessions().length, 0, "the connection is closed again")
    return error
  })
}

const set = (name: string, value: string) => (fake: FakeServer.FakeServer) => {
  fake.variables.set(name, value)
}

const byStatement = (fake: FakeServer.FakeServer) => {
  fake.variables.set("log_bin", "ON")
  fake.variables.set("binlog_format", "STATEMENT")
}

/** Lets so many looks at the server happen. */
const pass = (looks: number) =>
  Effect.repeat(Effect.andThen(turns, TestClock.adjust("50 millis")), { times: looks - 1 })

describe("a server that cannot carry locks fails the build and says so", () => {
  it.effect("one that gives up a lock for the next one", () =>
    Effect.gen(function*() {
      const error = yield* refusal((fake) => {
        fake.old = true
      })
      assert.strictEqual(error.reason, "Unsupported")
      assert.include(error.message, "cannot hold two locks")
    }))

  it.effect("one without the functions that locks need", () =>
    Effect.gen(function*() {
      const error = yield* refusal((fake) => {
        fake.fault = (sql) =>
          sql.includes("UUID_SHORT") ? FakeServer.serverError(1305, "FUNCTION UUID_SHORT does not exist") : undefined
      })
      assert.strictEqual(error.reason, "Unsupported")
      assert.include(error.message, "UUID_SHORT")
    }))

  it.effect("a node of a Galera cluster", () =>
    Effect.gen(function*() {
      const error = yield* refusal(set("wsrep_on", "ON"))
      assert.strictEqual(error.reason, "Unsupported")
      assert.include(error.message, "wsrep_on")
      const fake = FakeServer.make()
      fake.variables.set("wsrep_on", "OFF")
      yield* backendOf(fake)
    }))

  it.effect("a proxy that answers from another session", () =>
    Effect.gen(function*() {
      const error = yield* refusal((fake) => {
        fake.idShift = 1000
      })
      assert.strictEqual(error.reason, "Unsupported")
      assert.include(error.message, "proxy")
    }))

  it.effect("one whose replicas would not count the tokens of a table", () =>
    Effect.gen(function*() {
      assert.include((yield* refusal(byStatement, { fencing: { table: "tokens" } })).message, "binlog_format")
      const fake = FakeServer.make()
      byStatement(fake)
      yield* backendOf(fake)
    }))
})

describe("a server that is read-only", () => {
  for (const name of ["read_only", "super_read_only", "innodb_read_only"]) {
    it.effect(`is refused when it stays so for the command timeout (${name})`, () =>
      Effect.gen(function*() {
        const building = yield* start(refusal(set(name, "ON")))
        yield* TestClock.adjust("4 seconds")
        assert.isUndefined(building.pollUnsafe(), "it may be a fail-over")
        yield* TestClock.adjust("2 seconds")
        const error = yield* Fiber.join(building)
        assert.strictEqual(error.reason, "Unreachable")
        assert.include(error.message, "read-only")
      }))
  }

  it.effect("is used when it becomes the primary in time, or when that is allowed", () =>
    Effect.gen(function*() {
      const fake = FakeServer.make()
      fake.variables.set("read_only", "ON")
      const building = yield* start(backendOf(fake))
      yield* TestClock.adjust("2 seconds")
      fake.variables.set("read_only", "OFF")
      yield* TestClock.adjust("1 seconds")
      yield* Fiber.join(building)
      fake.variables.set("read_only", "ON")
      yield* backendOf(fake, { allowReadOnly: true })
    }))

  it.effect("is left when it becomes so, and its locks are lost", () =>
    Effect.gen(function*() {
      for (const allowReadOnly of [false, true]) {
        const fake = FakeServer.make()
        const backend = yield* backendOf(fake, { allowReadOnly })
        const request = yield* hold(backend, "key")
        fake.variables.set("read_only", "ON")
        const renewed = yield* backend.renew(request, { fresh: true })
        assert.strictEqual(renewed._tag, allowReadOnly ? "Some" : "None")
        assert.deepStrictEqual(request.losses, allowReadOnly ? [] : ["session"])
        const pinging = yield* start(Effect.exit(backend.ping))
        yield* TestClock.adjust("6 seconds")
        assert.strictEqual((yield* Fiber.join(pinging))._tag, allowReadOnly ? "Success" : "Failure")
      }
    }))
})

describe("a server that has just started", () => {
  it.effect("is not used in its first second: started again, it would give the same tokens", () =>
    Effect.gen(function*() {
      const fake = FakeServer.make()
      fake.uptime = 0
      const building = yield* start(backendOf(fake, { commandTimeout: "300 millis" }))
      yield* pass(18)
      assert.isUndefined(building.pollUnsafe())
      fake.uptime = 1
      yield* pass(2)
      yield* Fiber.join(building)
    }))

  it.effect("is used at once when its clock was set back", () =>
    Effect.gen(function*() {
      const fake = FakeServer.make()
      fake.uptime = -100
      const backend = yield* backendOf(fake)
      const request = yield* hold(backend, "key")
      yield* TestClock.adjust("20 seconds")
      expectSome(yield* backend.renew(request, {}))
      yield* hold(backend, "other", "10 seconds")
      assert.deepStrictEqual(request.losses, [], "nothing is known of its uptime")
    }))
})

describe("one truth", () => {
  /** An address that leads to another server when it is switched. */
  const switched = Effect.gen(function*() {
    const [a, b] = [FakeServer.make(), FakeServer.make()]
    b.variables.set("server_uuid", "b")
    let current = a
    const client: Client = { ...a.client, connect: (attempt) => current.client.connect(attempt) }
    const fake = { ...a, client }
    return { a, b, backend: yield* backendOf(fake), to: (server: FakeServer.FakeServer) => (current = server) }
  })

  it.effect("a connection to another server ends what is held on the first one, before anything is granted", () =>
    Effect.gen(function*() {
      const { a, b, backend, to } = yield* switched
      const held = yield* hold(backend, "key")
      to(b)
      // Another ttl needs another session.
      const next = newRequest("key", "10 seconds")
      const losses = held.losses
      expectSome(yield* backend.tryAcquire(next))
      assert.deepStrictEqual(losses, ["session"])
      assert.isUndefined(a.holder("key"))
      assert.isDefined(b.holder("key"))
      assert.strictEqual(yield* backend.release(held), "gone")
    }))

  it.effect("a wait is granted on the server where the locks are", () =>
    Effect.gen(function*() {
      const { a, b, backend, to } = yield* switched
      const other = yield* backendOf(a)
      yield* hold(other, "key")
      const own = yield* hold(backend, "own")
      to(b)
      const waiting = yield* start(backend.acquire(newRequest("key")))
      yield* TestClock.adjust("1 seconds")
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(own.losses, ["session"], "it was held on the server that was left")
    }))

  it.effect("an address that leads to both in turn is refused, and the locks on one of them stay", () =>
    Effect.gen(function*() {
      const { a, b, backend, to } = yield* switched
      yield* hold(backend, "first")
      to(b)
      const held = yield* hold(backend, "key", "10 seconds")
      assert.isDefined(b.holder("key"))
      to(a)
      const trying = yield* start(Effect.flip(backend.tryAcquire(newRequest("key", "20 seconds"))))
      yield* TestClock.adjust("6 seconds")
      const error = yield* Fiber.join(trying)
      assert.strictEqual(error.reason, "Unreachable")
      assert.include(error.message, "several servers")
      assert.deepStrictEqual(held.losses, [])
      assert.isDefined(b.holder("key"))
    }))

  it.effect("a server that was restarted has lost what a session that is still open had", () =>
    Effect.gen(function*() {
      const fake = FakeServer.make()
      const backend = yield* backendOf(fake)
      const request = yield* hold(backend, "key")
      yield* TestClock.adjust("20 seconds")
      expectSome(yield* backend.renew(request, {}))
      fake.uptime = 3
      yield* hold(backend, "other", "10 seconds")
      assert.deepStrictEqual(request.losses, ["session"])
    }))
})
