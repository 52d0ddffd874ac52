import { Errors } from "@dlock/core/backend"
import { assert, describe, it } from "@effect/vitest"
import { inspect } from "node:util"

const errors = Errors.make("redis")

const failure = (message: string, code?: string) => Object.assign(new Error(message), code && { code })

describe("errors", () => {
  it("are one line with the address and the server's words", () => {
    const cause = new Error("connect ECONNREFUSED\n 127.0.0.1:1")
    assert.strictEqual(
      errors.unreachable("connect", { at: { host: "::1", port: 1 }, detail: "no connection within 5 s", cause })
        .message,
      "redis could not connect at [::1]:1: the server is unreachable " +
        "(no connection within 5 s: connect ECONNREFUSED 127.0.0.1:1)"
    )
    assert.strictEqual(
      errors.timeout("renew", { at: "db:6379" }).message,
      "redis could not renew at db:6379: the server did not answer in time"
    )
    assert.strictEqual(errors.of("Rejected", "acquire").reason, "Rejected")
  })

  it("keep nothing of a driver's error but its name, its text and its codes", () => {
    const cause = Object.assign(new TypeError("NOAUTH hunter2 for redis://me:hunter2@db"), {
      code: "NOAUTH",
      errno: 7,
      command: { name: "auth", args: ["hunter2"] },
      sql: "SET PASSWORD = 'hunter2'"
    })
    const error = Errors.make("redis", (text) => text.replaceAll("hunter2", "<redacted>"))
      .unauthorized("connect", { cause })
    assert.deepInclude(error.cause, { name: "TypeError", code: "NOAUTH", errno: 7 })
    for (const shown of [inspect(error, { depth: 9 }), JSON.stringify(error), error.message, String(error.cause)]) {
      assert.notInclude(shown, "hunter2")
      assert.include(shown, "NOAUTH")
    }
  })

  it("of a host with several addresses say what happened to each", () => {
    assert.strictEqual(
      Errors.words(new AggregateError([new Error("refused ::1"), new Error("refused 127.0.0.1")])),
      "refused ::1, refused 127.0.0.1"
    )
    assert.isBelow(Errors.words("x".repeat(100_000)).length, 400)
    assert.strictEqual(Errors.words(undefined), "undefined")
  })

  it("about TLS say what to set, also where only their text is left", () => {
    for (
      const [cause, reason, detail] of [
        [
          failure("Hostname/IP does not match certificate's altnames: Host: a", "ERR_TLS_CERT_ALTNAME_INVALID"),
          "Rejected",
          "tls.serverName"
        ],
        [
          failure("14 UNAVAILABLE: Hostname/IP does not match certificate's altnames: Host: a"),
          "Rejected",
          "tls.serverName"
        ],
        [failure("x", "DEPTH_ZERO_SELF_SIGNED_CERT"), "Rejected", "tls.ca"],
        [failure("14 UNAVAILABLE: unable to verify the first certificate"), "Rejected", "tls.ca"],
        [failure("ssl/tls alert certificate required"), "Unauthorized", "tls.cert and tls.key"],
        [failure("SSL routines:ssl3_get_record:wrong version number", "EPROTO"), "Rejected", "set tls to false"]
      ] as const
    ) {
      const problem = Errors.tlsProblem(cause)
      assert.strictEqual(problem?.reason, reason, cause.message)
      assert.include(problem?.detail, detail)
    }
    assert.isUndefined(Errors.tlsProblem(failure("connect ECONNREFUSED 127.0.0.1:1", "ECONNREFUSED")))
  })

  it("that pass by themselves are those of a server that is away or silent", () => {
    assert.isTrue(Errors.passes(errors.unreachable("acquire")))
    assert.isTrue(Errors.passes(errors.timeout("acquire")))
    for (const reason of ["rejected", "unauthorized", "unsupported", "protocol", "options"] as const) {
      assert.isFalse(Errors.passes(errors[reason]("acquire")), reason)
    }
  })
})
