import { assert, describe, it } from "@effect/vitest"
import { fromDriver, toBackendError } from "../src/internal/MysqlError.ts"

const driver = (fields: object): unknown => Object.assign(new Error("words"), fields)

const reason = (fields: object) => toBackendError("acquire", fromDriver(driver(fields))).reason

describe("MysqlError", () => {
  it("each error has the reason that says what to do about it", () => {
    assert.strictEqual(reason({ code: "ECONNREFUSED", errno: -111 }), "Unreachable")
    assert.strictEqual(reason({ code: "ENOTFOUND" }), "Unreachable")
    assert.strictEqual(reason({ code: "PROTOCOL_CONNECTION_LOST", fatal: true }), "Unreachable")
    assert.strictEqual(reason({}), "Unreachable", "the driver on a closed connection says no more")
    assert.strictEqual(reason({ code: "ER_SERVER_SHUTDOWN", errno: 1053 }), "Unreachable")
    assert.strictEqual(reason({ code: "ER_ACCESS_DENIED_ERROR", errno: 1045 }), "Unauthorized")
    assert.strictEqual(reason({ code: "ER_TABLEACCESS_DENIED_ERROR", errno: 1142 }), "Unauthorized")
    assert.strictEqual(reason({ code: "AUTH_SWITCH_PLUGIN_ERROR" }), "Unauthorized")
    assert.strictEqual(reason({ code: "ER_CON_COUNT_ERROR", errno: 1040 }), "Rejected")
    assert.strictEqual(reason({ code: "ER_OPTION_PREVENTS_STATEMENT", errno: 1290 }), "Rejected")
    assert.strictEqual(reason({ code: "HANDSHAKE_SSL_ERROR" }), "Rejected")
    assert.strictEqual(reason({ code: "PROTOCOL_UNEXPECTED_PACKET" }), "Protocol")
  })

  it("nothing of the statement is kept", () => {
    const error = toBackendError(
      "acquire",
      fromDriver(driver({ code: "ER_PARSE_ERROR", errno: 1064, sql: "SELECT 'secret'", sqlMessage: "secret" }))
    )
    assert.notInclude(JSON.stringify(error), "secret")
    assert.notInclude(JSON.stringify(error.cause, Object.getOwnPropertyNames(error.cause)), "secret")
    assert.include(error.message, "words")
  })

  it("a host with several addresses says why the first can not be reached", () => {
    const first = new Error("connect ECONNREFUSED ::1:3306")
    const error = fromDriver(Object.assign(new AggregateError([first]), { code: "ECONNREFUSED" }))
    assert.strictEqual(error.message, "connect ECONNREFUSED ::1:3306")
    assert.strictEqual(fromDriver("what?").message, "unknown error")
  })
})
