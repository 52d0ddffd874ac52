/**
 * What a process remembers of its releases.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as attempts from "../src/internal/attempts.ts"
import * as holds from "../src/internal/holds.ts"
import * as scripts from "../src/internal/scripts.ts"
import * as support from "./support.ts"

const setup = () => {
  const { connection, expire, pass } = support.setup(() => "silence")
  const means = { connection, scripts: scripts.make(true), channel: "c", limit: 5000, clockAhead: 0 }
  const all = holds.make(means, (effect) => Effect.runFork(effect))
  const release = (owner: string) => holds.remember(all, attempts.make(support.requestOf("k", owner), "", 5000))
  return { all, expire, pass, release, owners: () => all.released.slice(all.oldest).map(({ owner }) => owner) }
}

describe("a server that is new", () => {
  it.live("is asked for what is held before a grant is given out, also when it comes during the wait for another", () =>
    Effect.gen(function*() {
      const { connection: other, sent } = support.setup(() => ({ reply: ["ours"] }))
      let place = {}
      const connection = { ...other, placeOf: () => place, places: () => [place] }
      const means = { connection, scripts: scripts.make(true), channel: "c", limit: 5000, clockAhead: 0 }
      const all = holds.make(means, (effect) => Effect.runFork(effect))
      const attempt = attempts.make(support.requestOf("k", "me"), "", 5000)
      holds.begin(all, attempt)
      place = {}
      const first = yield* Effect.forkChild(holds.unsettled(all, attempt) ?? Effect.die("it is settled"), {
        startImmediately: true
      })
      place = {}
      yield* Fiber.join(first)
      assert.strictEqual(sent.length, 2, "each server was asked")
      assert.isUndefined(holds.unsettled(all, attempt))
    }))
})

describe("releases", () => {
  it("are remembered for five seconds, and forgotten without another release", () => {
    const { all, expire, owners, pass, release } = setup()
    release("a")
    pass(4000)
    release("b")
    assert.deepStrictEqual(owners(), ["a", "b"])
    pass(1000)
    expire()
    assert.deepStrictEqual(owners(), ["b"])
    pass(4000)
    expire()
    assert.deepStrictEqual([owners(), all.released.length], [[], 0])
  })

  it("are ten thousand at most", () => {
    const { all, owners, release } = setup()
    for (let i = 0; i < 25_000; i++) release(`${i}`)
    assert.deepStrictEqual([owners().length, owners()[0]], [10_000, "15000"])
    assert.isAtMost(all.released.length, 20_001)
  })
})
