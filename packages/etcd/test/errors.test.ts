import { assert, describe, it } from "@effect/vitest"
import { classify, timedOut, toError } from "../src/internal/errors.ts"

const failure = (text: string) => {
  const result = classify(new Error(text))
  return result._tag === "Failure" ? result : assert.fail(`${text} is taken for a lease that is gone`)
}

describe("EtcdFailure", () => {
  const table = [
    // text, reason, passes, unknown
    [
      "14 UNAVAILABLE: No connection established. Last error: connect ECONNREFUSED 127.0.0.1:1. Resolution note: ",
      "Unreachable",
      true,
      false
    ],
    ["14 UNAVAILABLE: Name resolution failed for target dns:nowhere:1", "Unreachable", true, false],
    ["14 UNAVAILABLE: Connection dropped", "Unreachable", true, true],
    ["14 UNAVAILABLE: etcdserver: no leader", "Unreachable", true, true],
    [
      "14 UNAVAILABLE: etcdserver: request timed out, possibly due to previous leader failure",
      "Unreachable",
      true,
      true
    ],
    [
      "4 DEADLINE_EXCEEDED: Deadline exceeded after 0.5s,LB pick: 0.001s,remote_addr=127.0.0.1:1",
      "Timeout",
      true,
      true
    ],
    ["4 DEADLINE_EXCEEDED: Deadline exceeded after 0.5s,Waiting for LB pick", "Unreachable", true, false],
    [
      "4 DEADLINE_EXCEEDED: Deadline exceeded after 0.000s,waiting for name resolution",
      "Unreachable",
      true,
      false
    ],
    ["2 UNKNOWN: context deadline exceeded", "Unreachable", true, true],
    ["1 CANCELLED: Cancelled on client", "Unreachable", true, true],
    ["13 INTERNAL: Received RST_STREAM with code 2", "Protocol", true, true],
    ["Tried to call a KV method on etcd3, but the client was already closed", "Unreachable", true, false],
    ["Execution prevented because the circuit breaker is open", "Unreachable", true, false],
    ["8 RESOURCE_EXHAUSTED: etcdserver: mvcc: database space exceeded", "Rejected", false, false],
    ["8 RESOURCE_EXHAUSTED: etcdserver: too many requests", "Unreachable", true, false],
    ["3 INVALID_ARGUMENT: etcdserver: request is too large", "Rejected", false, false],
    [
      "3 INVALID_ARGUMENT: etcdserver: authentication failed, invalid user ID or password",
      "Unauthorized",
      false,
      false
    ],
    ["3 INVALID_ARGUMENT: etcdserver: user name is empty", "Unauthorized", false, false],
    ["9 FAILED_PRECONDITION: etcdserver: authentication is not enabled", "Rejected", false, false],
    ["7 PERMISSION_DENIED: etcdserver: permission denied", "Unauthorized", false, false],
    ["16 UNAUTHENTICATED: etcdserver: invalid auth token", "Unauthorized", false, false],
    ["3 INVALID_ARGUMENT: etcdserver: revision of auth store is old", "Unauthorized", false, false],
    ["12 UNIMPLEMENTED: unknown service etcdserverpb.KV", "Unsupported", false, false],
    ["something else", "Protocol", false, true]
  ] as const

  for (const [text, reason, passes, unknown] of table) {
    it(`${text} is ${reason}`, () => {
      const result = failure(text)
      assert.deepStrictEqual(
        { reason: result.reason, passes: result.passes, unknown: result.unknown },
        { reason, passes, unknown }
      )
    })
  }

  it("tells a lease that is gone, however the driver words it", () => {
    const text = "5 NOT_FOUND: etcdserver: requested lease not found"
    for (const worded of [text, `Lease ${text} is expired or revoked`]) {
      assert.strictEqual(classify(new Error(worded))._tag, "LeaseGone")
    }
  })

  it("keeps nothing of the driver's error but its text", () => {
    const error = Object.assign(new Error("14 UNAVAILABLE: Connection dropped"), {
      metadata: { token: "secret" },
      request: { password: "secret" }
    })
    const result = classify(error)
    const told = result._tag === "Failure" ? toError("acquire", result) : assert.fail()
    assert.strictEqual(told.message, "etcd could not acquire: the server is unreachable (Connection dropped)")
    assert.notInclude(JSON.stringify([told, Object.entries(told), told.cause]), "secret")
    assert.notInclude(String(told.stack), "secret")
  })

  it("tells how long it waited", () => {
    assert.strictEqual(
      toError("release", timedOut(1500)).message,
      "etcd could not release: the server did not answer in time (no answer within 1500 ms)"
    )
  })
})
