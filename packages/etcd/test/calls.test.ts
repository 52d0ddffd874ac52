import { Timers } from "@dlock/core/backend"
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Etcd3 } from "etcd3"
import { call, type State } from "../src/internal/calls.ts"
import type { Connection } from "../src/internal/connection.ts"

/** A layer with one connection, over which requests are only tried. */
const makeState = Effect.gen(function*() {
  const driver = yield* Effect.acquireRelease(
    Effect.sync(() => new Etcd3({ hosts: "127.0.0.1:1" })),
    (driver) => Effect.sync(() => driver.close())
  )
  const connection: Connection = { driver, address: "here:1", streams: new Set(), close: () => {}, answered: false }
  const state: State = {
    connections: { count: 1, isGiven: false, current: Effect.succeed(connection), discard: () => {} },
    login: undefined,
    timers: yield* Timers.make,
    cluster: undefined,
    boundUntil: 0
  }
  return state
})

/** What a request fails with in the end. */
const failure = Effect.fnUntraced(function*(state: State, run: () => Promise<never>) {
  const asking = yield* Effect.forkChild(Effect.flip(call(state, "acquire", { total: 630 }, run)))
  for (let i = 0; i < 400; i++) yield* Effect.andThen(TestClock.adjust(5), Effect.yieldNow)
  const error = yield* Fiber.join(asking)
  return error._tag === "LockBackendError" ? error : assert.fail(error._tag)
})

it.effect("no try is begun with so little time that it can only condemn its connection", () =>
  Effect.gen(function*() {
    const state = yield* makeState
    const triedAt: Array<number> = []
    yield* failure(state, () => {
      triedAt.push(state.timers.now())
      return Promise.reject(new Error("14 UNAVAILABLE: refused"))
    })
    // The next one would be at 620, with 10 ms left of the 315 that a try has.
    assert.strictEqual(triedAt.length, 5, `${triedAt}`)
  }))

const lastTries: ReadonlyArray<readonly [how: string, run: () => Promise<never>]> = [
  [
    "ran out of time before there was a connection",
    () => Promise.reject(new Error("4 DEADLINE_EXCEEDED: Deadline exceeded after 0.2s,Waiting for LB pick"))
  ],
  ["is not answered", () => new Promise<never>(() => {})]
]

it.effect.each(lastTries)(
  "what a try failed with is told, though a later one %s",
  ([, last]) =>
    Effect.gen(function*() {
      let tries = 0
      const error = yield* failure(yield* makeState, () =>
        ++tries === 1
          ? Promise.reject(new Error("14 UNAVAILABLE: No connection established. Last error: refused"))
          : last())
      assert.isAbove(tries, 1)
      assert.include(error.message, "Last error: refused")
    })
)
