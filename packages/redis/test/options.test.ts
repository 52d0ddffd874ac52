import { LockBackendError } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { parse } from "../src/internal/RedisAddress.ts"

describe("addresses", () => {
  it("are read as people write them", () => {
    assert.deepStrictEqual(parse("localhost:6379", 1), { host: "localhost", port: 6379 })
    assert.deepStrictEqual(parse("redis.example.org", 6379), { host: "redis.example.org", port: 6379 })
    assert.deepStrictEqual(parse("[::1]:7000", 1), { host: "::1", port: 7000 })
    assert.deepStrictEqual(parse("[fe80::1%eth0]", 6379), { host: "fe80::1%eth0", port: 6379 })
  })

  it("that are none are told apart", () => {
    const wrong = [
      "",
      " ",
      ":6379",
      "a:b",
      "a:0",
      "a:65536",
      "a:6379:1",
      "::1",
      "[::1",
      "[a]:1",
      "redis://a:1",
      "a b:1",
      "u@h"
    ]
    for (const text of wrong) assert.isUndefined(parse(text, 6379), text)
  })
})

const wrong: ReadonlyArray<readonly [options: RedisLock.Options, hint: string]> = [
  [{ addrs: [] }, "addrs"],
  [{ addrs: ["redis://localhost"] }, "redis://localhost"],
  [{ addrs: ["a:1", "b:2"] }, "cluster"],
  [{ mode: "cluster", addrs: ["a:1", "b:nonsense"] }, "b:nonsense"],
  [{ mode: "cluster", addrs: ["a:1"], db: 1 }, "database"],
  [{ mode: "sentinel", addrs: ["a:1"] }, "masterName"],
  [{ addrs: ["a:1"], masterName: "m" }, "sentinel"],
  [{ db: -1 }, "db"],
  [{ db: 1.5 }, "db"],
  [{ commandTimeout: "0 seconds" }, "commandTimeout"],
  [{ commandTimeout: "Infinity" }, "commandTimeout"]
]

describe("options", () => {
  for (const [options, hint] of wrong) {
    it.effect(`that make no sense are an error before anything is sent: ${JSON.stringify(options)}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(RedisLock.make(options))
        assert.instanceOf(error, LockBackendError)
        assert.strictEqual(error.reason, "Options")
        assert.include(error.message, hint)
      }))
  }
})
