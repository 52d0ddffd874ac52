import { EtcdLock } from "@dlock/etcd"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import * as EtcdSession from "../src/internal/EtcdSession.ts"

describe("EtcdLock", () => {
  const senseless: ReadonlyArray<readonly [EtcdLock.Options, RegExp]> = [
    [{ endpoints: [] }, /there must be an endpoint/],
    [{ endpoints: ["localhost"] }, /host:port, not "localhost"/],
    [{ endpoints: ["localhost:2379", ""] }, /host:port, not ""/],
    [{ endpoints: ["http://localhost:2379/v3"] }, /host:port/],
    [{ commandTimeout: 0 }, /the command timeout must be positive/],
    [{ commandTimeout: "Infinity" }, /the command timeout must be positive and finite/],
    [{ dialTimeout: -1 }, /the dial timeout must be positive/]
  ]
  for (const [options, problem] of senseless) {
    it.effect(`refuses ${JSON.stringify(options)} before anything is sent`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Effect.scoped(EtcdLock.make(options)))
        assert.strictEqual(error.reason, "Options")
        assert.match(error.message, problem)
      }))
  }

  it("gives whole seconds up to ten, and few values beyond", () => {
    for (
      const [asked, given] of [[1000, 1], [1001, 2], [9500, 10], [10_001, 12], [29_000, 30], [31_000, 40]] as const
    ) {
      assert.strictEqual(EtcdSession.rungOf(Duration.millis(asked)), given)
    }
    assert.strictEqual(EtcdSession.rungOf(Duration.hours(1.5)), 2 * 3600)
    assert.strictEqual(EtcdSession.rungOf(Duration.seconds(EtcdSession.longest)), EtcdSession.longest)
    for (let seconds = 1; seconds <= 3600; seconds++) {
      const rung = EtcdSession.rungOf(Duration.seconds(seconds))
      assert.isTrue(rung >= seconds && rung <= seconds * 1.5, `${seconds} s is rounded up to ${rung} s`)
    }
  })
})
