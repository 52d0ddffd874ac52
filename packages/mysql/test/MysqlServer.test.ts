import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { parseVersion, setUp, versionProblem } from "../src/internal/MysqlServer.ts"
import * as FakeServer from "./FakeServer.ts"
import { backendOf, turns } from "./support.ts"

const server = (version: string) => ({ ...(parseVersion(version) ?? assert.fail(version)), incarnation: "1" })

const refusal = (change: (fake: FakeServer.FakeServer) => void) => {
  const fake = FakeServer.make()
  change(fake)
  return Effect.map(Effect.flip(Effect.scoped(backendOf(fake))), (error) => {
    assert.strictEqual(fake.sessions().length, 0, "the connection is closed again")
    return error
  })
}

/** Lets so many looks at the server happen. */
const pass = (looks: number) =>
  Effect.repeat(Effect.andThen(turns, TestClock.adjust("50 millis")), { times: looks - 1 })

describe("MysqlServer", () => {
  it("versions", () => {
    assert.deepStrictEqual(parseVersion("9.7.4-2"), { kind: "MySQL", version: [9, 7, 4] })
    assert.deepStrictEqual(parseVersion("10.11.19-MariaDB-0+deb12u1"), { kind: "MariaDB", version: [10, 11, 19] })
    assert.deepStrictEqual(parseVersion("5.5.5-10.4.2-MariaDB-log"), { kind: "MariaDB", version: [10, 4, 2] })
    assert.isUndefined(parseVersion("nine"))
  })

  it("who is too old to hold two locks per session is refused, and who is not is not", () => {
    for (const version of ["5.7.4", "5.6.51-log", "5.1.73", "10.0.1-MariaDB", "5.5.68-MariaDB"]) {
      assert.include(versionProblem(version), "older than", version)
    }
    for (
      const version of ["5.7.5", "5.7.44-log", "8.0.36-0ubuntu0.22.04.1", "9.7.4", "10.0.2-MariaDB", "11.8.6-MariaDB"]
    ) {
      assert.isUndefined(versionProblem(version), version)
    }
  })

  it("who only speaks the protocol is refused", () => {
    for (const version of ["8.0.30-Vitess", "8.0.11-TiDB-v8.5.0", "nine"]) {
      assert.isDefined(versionProblem(version), version)
    }
  })

  it("the time limit of statements is lifted where there is one", () => {
    assert.include(setUp(server("9.7.4"), 30), "wait_timeout = 30")
    assert.include(setUp(server("9.7.4"), 30), "max_execution_time = 0")
    assert.notInclude(setUp(server("5.7.5"), 30), "max_execution_time")
    assert.include(setUp(server("10.11.19-MariaDB"), 30), "max_statement_time = 0")
    assert.notInclude(setUp(server("10.0.2-MariaDB"), 30), "max_")
  })

  it.effect("a server that is too old fails the build and says so", () =>
    Effect.gen(function*() {
      const error = yield* refusal((fake) => {
        fake.version = "5.6.51"
      })
      assert.strictEqual(error.reason, "Unsupported")
      assert.include(error.message, "MySQL 5.6.51 is older than 5.7.5")
    }))

  it.effect("Galera fails the build and says so", () =>
    Effect.gen(function*() {
      const error = yield* refusal((fake) => {
        fake.wsrep = "ON"
      })
      assert.strictEqual(error.reason, "Unsupported")
      assert.include(error.message, "wsrep_on")
    }))

  it.effect("wsrep_on = OFF is no cluster", () =>
    Effect.gen(function*() {
      const fake = FakeServer.make()
      fake.wsrep = "OFF"
      yield* backendOf(fake)
    }))

  it.effect("a proxy that answers from another session fails the build and says so", () =>
    Effect.gen(function*() {
      const error = yield* refusal((fake) => {
        fake.idShift = 1000
      })
      assert.strictEqual(error.reason, "Unsupported")
      assert.include(error.message, "proxy")
    }))

  it.effect("a server without the functions that locks need fails the build and says so", () =>
    Effect.gen(function*() {
      const error = yield* refusal((fake) => {
        fake.fault = (sql) =>
          sql.includes("UUID_SHORT") ? FakeServer.serverError(1305, "FUNCTION UUID_SHORT does not exist") : undefined
      })
      assert.strictEqual(error.reason, "Unsupported")
      assert.include(error.message, "UUID_SHORT")
    }))

  it.effect("a server in its first second is not used yet: started again, it would give the same tokens", () =>
    Effect.gen(function*() {
      const fake = FakeServer.make()
      fake.young = true
      const building = yield* Effect.forkScoped(backendOf(fake, { commandTimeout: "300 millis" }), {
        startImmediately: true
      })
      yield* pass(18)
      assert.isUndefined(building.pollUnsafe())
      fake.young = false
      yield* pass(2)
      yield* Fiber.join(building)
    }))

  it.effect("a server whose clock was set back is used all the same", () =>
    Effect.gen(function*() {
      const fake = FakeServer.make()
      fake.young = true
      const building = yield* Effect.forkScoped(backendOf(fake), { startImmediately: true })
      yield* pass(40)
      yield* Fiber.join(building)
    }))
})
