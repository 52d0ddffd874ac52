import { Errors } from "@dlock/core/backend"
import { assert, describe, it } from "@effect/vitest"
import { ConnectionError, SqlError, UnknownError } from "effect/sql/SqlError"
import * as errors from "../src/internal/errors.ts"

const withCode = (code: string): Error => Object.assign(new Error("words"), { code })

const fromServer = (code: string) => new SqlError({ reason: new UnknownError({ cause: withCode(code) }) })

const fromSocket = (code: string) => new SqlError({ reason: new ConnectionError({ cause: withCode(code) }) })

const reasonOf = (error: SqlError) => errors.toBackendError(Errors.make("postgres"), "acquire", "db:5432", error).reason

describe("errors", () => {
  it("a code of the system is no answer of the server", () => {
    for (const code of ["EPIPE", "ECONNRESET", "EPERM"]) {
      const error = fromSocket(code)
      assert.strictEqual(reasonOf(error), "Unreachable")
      assert.isTrue(errors.endsSession(error))
      assert.isFalse(errors.isRefusal(error))
    }
  })

  it("what passes by itself is Unreachable", () => {
    for (const code of ["25006", "40001", "40P01", "53300", "55P03", "57P01", "57P03", "08006"]) {
      assert.strictEqual(reasonOf(fromServer(code)), "Unreachable", code)
    }
  })

  it("what does not is told with its next step", () => {
    assert.strictEqual(reasonOf(fromServer("28P01")), "Unauthorized")
    assert.strictEqual(reasonOf(fromServer("42501")), "Unauthorized")
    assert.strictEqual(reasonOf(fromServer("3D000")), "Rejected")
    const missing = errors.toBackendError(Errors.make("postgres"), "acquire", "db:5432", fromServer("42883"))
    assert.include(missing.message, "postgres could not acquire at db:5432")
    assert.include(missing.message, "schema.sql")
    assert.include(missing.message, "words")
  })

  it("a server that ends the session may have done what was asked", () => {
    assert.isFalse(errors.isRefusal(fromServer("57P01")))
    assert.isTrue(errors.isRefusal(fromServer("55P03")))
  })

  it("one key's refusal is tried alone, the server's own is not", () => {
    assert.isTrue(errors.mayBeOfOneKey(fromServer("55P03")))
    assert.isFalse(errors.mayBeOfOneKey(fromServer("53300")))
    assert.isFalse(errors.mayBeOfOneKey(fromServer("25006")))
  })

  it("a lack of room is known from the error of the backend", () => {
    const error = errors.toBackendError(Errors.make("postgres"), "acquire", "db:5432", fromServer("53300"))
    assert.isTrue(errors.lacksCapacity(error))
  })
})
