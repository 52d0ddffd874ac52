import { Errors } from "@dlock/core/backend"
import { assert, describe, it } from "@effect/vitest"
import { fromDriver, toBackendError } from "../src/internal/errors.ts"

const driver = (fields: object): unknown => Object.assign(new Error("words"), fields)

const reason = (fields: object) => toBackendError(Errors.make("mysql"))("acquire")(fromDriver(driver(fields))).reason

describe("errors", () => {
  it("each error has the reason that says what to do about it", () => {
    assert.strictEqual(reason({ code: "ECONNREFUSED", errno: -111 }), "Unreachable")
    assert.strictEqual(reason({ code: "ENOTFOUND" }), "Unreachable")
    assert.strictEqual(reason({ code: "PROTOCOL_CONNECTION_LOST", fatal: true }), "Unreachable")
    assert.strictEqual(reason({}), "Unreachable", "the driver on a closed connection says no more")
    assert.strictEqual(reason({ code: "ER_SERVER_SHUTDOWN", errno: 1053 }), "Unreachable")
    assert.strictEqual(reason({ code: "ER_ACCESS_DENIED_ERROR", errno: 1045 }), "Unauthorized")
    assert.strictEqual(reason({ code: "ER_TABLEACCESS_DENIED_ERROR", errno: 1142 }), "Unauthorized")
    assert.strictEqual(reason({ code: "AUTH_SWITCH_PLUGIN_ERROR" }), "Unauthorized")
    assert.strictEqual(reason({ code: "ER_BAD_DB_ERROR", errno: 1049 }), "Rejected")
    assert.strictEqual(reason({ code: "HANDSHAKE_SSL_ERROR" }), "Rejected")
    assert.strictEqual(reason({ code: "PROTOCOL_UNEXPECTED_PACKET" }), "Protocol")
  })

  it("what passes by itself is unreachable for now", () => {
    for (const errno of [1040, 1203, 1226, 3032, 1290, 1836, 1205]) {
      assert.strictEqual(reason({ code: `ER_${errno}`, errno }), "Unreachable", `${errno}`)
    }
  })

  it("nothing of the statement is kept", () => {
    const error = toBackendError(Errors.make("mysql"))("acquire")(
      fromDriver(driver({ code: "ER_PARSE_ERROR", errno: 1064, sql: "SELECT 'secret'", sqlMessage: "secret" }))
    )
    assert.notInclude(JSON.stringify(error), "secret")
    assert.notInclude(JSON.stringify(error.cause, Object.getOwnPropertyNames(error.cause)), "secret")
    assert.include(error.message, "words")
  })

  it("a host with several addresses says why the first cannot be reached", () => {
    const first = new Error("connect ECONNREFUSED ::1:3306")
    const error = fromDriver(Object.assign(new AggregateError([first]), { code: "ECONNREFUSED" }))
    assert.strictEqual(error.message, "connect ECONNREFUSED ::1:3306")
    assert.strictEqual(fromDriver("what?").message, "unknown error")
  })
})
