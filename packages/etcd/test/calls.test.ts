import { Timers } from "@dlock/core/backend"
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Etcd3 } from "etcd3"
import { call, type State } from "../src/internal/calls.ts"
import type { Connection } from "../src/internal/connection.ts"

it.effect("no try is begun with so little time that it can only condemn its connection", () =>
  Effect.gen(function*() {
    const driver = new Etcd3({ hosts: "127.0.0.1:1" })
    const connection: Connection = { driver, address: "here:1", streams: new Set(), close: () => {}, answered: false }
    const state: State = {
      connections: { count: 1, isGiven: false, current: Effect.succeed(connection), discard: () => {} },
      login: undefined,
      timers: yield* Timers.make,
      cluster: undefined,
      boundUntil: 0
    }
    const triedAt: Array<number> = []
    const asking = yield* Effect.forkChild(Effect.flip(call(state, "acquire", { total: 630 }, () => {
      triedAt.push(state.timers.now())
      return Promise.reject(new Error("14 UNAVAILABLE: refused"))
    })))
    for (let i = 0; i < 200; i++) yield* Effect.andThen(TestClock.adjust(5), Effect.yieldNow)
    const error = yield* Fiber.join(asking)
    driver.close()
    assert.strictEqual(error._tag, "LockBackendError")
    // The next one would be at 620, with 10 ms left of the 315 that a try has.
    assert.strictEqual(triedAt.length, 5, `${triedAt}`)
  }))
