import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { ask } from "./harness/Probe.ts"
import { proxy } from "./harness/Proxy.ts"
import { redis } from "./harness/RedisServer.ts"

describe("redis", () => {
  it.live("answers", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const p = yield* proxy(server)
      assert.include(yield* ask(p, "PING\r\n", /PONG/), "PONG")
      yield* server.kill
      yield* server.start
      assert.include(yield* ask(p, "PING\r\n", /PONG/), "PONG")
    }))
})
