import { EtcdLock } from "@dlock/etcd"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as session from "../src/internal/session.ts"

describe("EtcdLock", () => {
  const senseless: ReadonlyArray<readonly [EtcdLock.Options, RegExp]> = [
    [{ endpoints: [] }, /endpoints: expected at least one address/],
    [{ endpoints: ["127.0.0.1:99999"] }, /endpoints: .*99999/],
    [{ endpoints: ["localhost:2379", ""] }, /endpoints: "" is no address/],
    [{ endpoints: ["http://localhost:2379/v3"] }, /endpoints: /],
    [{ commandTimeout: 0 }, /commandTimeout: expected a duration/],
    [{ commandTimeout: "Infinity" }, /commandTimeout: expected a duration/],
    [{ dialTimeout: -1 }, /dialTimeout: expected a duration/],
    [{ tls: { cert: "client.pem" } }, /tls: cert and key need each other/],
    [{ password: "secret" }, /password: it needs a username/],
    [{ endpoints: ["http://localhost:2379", "https://localhost:2379"] }, /endpoints: .*http:\/\/.*https:\/\//]
  ]
  for (const [options, problem] of senseless) {
    it.effect(`refuses ${JSON.stringify(options)} before anything is sent`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Effect.scoped(EtcdLock.make(options)))
        assert.strictEqual(error.reason, "Options")
        assert.match(error.message, problem)
      }))
  }

  it("takes versions before the fix of leases for old, and what it cannot read for new", () => {
    for (const version of ["3.3.27", "3.4.23", "3.5.0", "3.5.12"]) assert.isTrue(session.isOld(version), version)
    for (const version of ["3.5.13", "3.5.30", "3.6.0", "4.0.0", "", "unknown"]) {
      assert.isFalse(session.isOld(version), version)
    }
  })

  it("gives whole seconds up to ten, and few values beyond", () => {
    for (
      const [asked, given] of [[1000, 1], [1001, 2], [9500, 10], [10_001, 12], [29_000, 30], [31_000, 40]] as const
    ) {
      assert.strictEqual(session.rungOf(asked), given)
    }
    assert.strictEqual(session.rungOf(1.5 * 3600_000), 2 * 3600)
    assert.strictEqual(session.rungOf(session.longest * 1000), session.longest)
    for (let seconds = 1; seconds <= 3600; seconds++) {
      const rung = session.rungOf(seconds * 1000)
      assert.isTrue(rung >= seconds && rung <= seconds * 1.5, `${seconds} s is rounded up to ${rung} s`)
    }
  })
})
