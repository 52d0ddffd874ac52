import type { BackendReason } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { inspect } from "node:util"
import { make } from "../src/internal/errors.ts"

const toError = make("redis")

const fromDriver = (operation: string, cause: unknown) => toError(operation, { _tag: "Failed", cause })

const reply = (message: string) =>
  Object.assign(new Error(message), { name: "ReplyError", command: { name: "hello", args: ["AUTH", "secret"] } })

const cases: ReadonlyArray<readonly [cause: unknown, reason: BackendReason]> = [
  [reply("NOAUTH Authentication required."), "Unauthorized"],
  [reply("WRONGPASS invalid username-password pair or user is disabled."), "Unauthorized"],
  [reply("NOPERM this user has no permissions to run the 'evalsha' command"), "Unauthorized"],
  [reply("ERR invalid password"), "Unauthorized"],
  [reply("READONLY You can't write against a read only replica. script: 1, on @user_script:1."), "Unreachable"],
  [reply("OOM command not allowed when used memory > 'maxmemory'."), "Rejected"],
  [reply("MISCONF Redis is configured to save RDB snapshots"), "Rejected"],
  [reply("NOREPLICAS Not enough good replicas to write."), "Unreachable"],
  [reply("BUSY Redis is busy running a script."), "Unreachable"],
  [reply("WRONGTYPE Operation against a key holding the wrong kind of value"), "Rejected"],
  [reply("UNKILLABLE Sorry the script already executed write commands"), "Unreachable"],
  [reply("ERR max number of clients reached"), "Unreachable"],
  [reply("LOADING Redis is loading the dataset in memory"), "Unreachable"],
  [reply("MASTERDOWN Link with MASTER is down"), "Unreachable"],
  [reply("CLUSTERDOWN The cluster is down"), "Unreachable"],
  [new Error("Too many Cluster redirections. Last error: ReplyError: MOVED 1 a:1"), "Unreachable"],
  [reply("MOVED 3999 127.0.0.1:6381"), "Unsupported"],
  [reply("ERR unknown command 'EVALSHA', with args beginning with: 'secret' "), "Unsupported"],
  [new Error("Command timed out"), "Timeout"],
  [new Error("Connection is closed."), "Unreachable"],
  [
    new AggregateError([new Error("connect ECONNREFUSED ::1:1"), new Error("connect ECONNREFUSED 127.0.0.1:1")]),
    "Unreachable"
  ],
  ["a text", "Unreachable"]
]

describe("errors of the driver", () => {
  for (const [cause, reason] of cases) {
    it(`are ${reason}: ${String(cause)}`, () => {
      const error = fromDriver("acquire", cause)
      assert.strictEqual(error.reason, reason)
      const printed = [error.message, JSON.stringify(error), inspect(error, { depth: 9, showHidden: true })].join()
      assert.notInclude(printed, "secret", "no argument of a command is passed on")
    })
  }

  it("of all addresses of a host are told", () => {
    const { message } = fromDriver("connect", new AggregateError([new Error("one"), new Error("two")]))
    assert.include(message, "one, two")
  })
})
