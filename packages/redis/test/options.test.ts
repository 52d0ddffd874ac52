import { LockBackendError } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"

const wrong: ReadonlyArray<readonly [options: RedisLock.Options, hint: string]> = [
  [{ addrs: [] }, "addrs"],
  [{ addrs: ["redis://localhost"] }, "redis://localhost"],
  [{ addrs: ["a:1", "b:2"] }, "cluster"],
  [{ mode: "cluster", addrs: ["a:1", "b:nonsense"] }, "b:nonsense"],
  [{ mode: "cluster", addrs: ["a:1"], db: 1 }, "database"],
  [{ mode: "sentinel", addrs: ["a:1"] }, "masterName"],
  [{ addrs: ["a:1"], masterName: "m" }, "sentinel"],
  [{ addrs: ["a:1"], sentinelPassword: "p" }, "sentinelPassword"],
  [{ mode: "cluster", addrs: ["a:1"], sentinelTls: true }, "sentinelTls"],
  [{ db: -1 }, "db"],
  [{ db: 1.5 }, "db"],
  [{ commandTimeout: "0 seconds" }, "commandTimeout"],
  [{ commandTimeout: "Infinity" }, "commandTimeout"],
  [{ keyPrefix: "a:dlock-b" }, "keyPrefix"]
]

describe("options", () => {
  for (const [options, hint] of wrong) {
    it.effect(`that are invalid are an error before anything is sent: ${JSON.stringify(options)}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(RedisLock.make(options))
        assert.instanceOf(error, LockBackendError)
        assert.strictEqual(error.reason, "Options")
        assert.include(error.message, hint)
      }))
  }
})
