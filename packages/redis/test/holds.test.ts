/**
 * What a process remembers of its releases.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
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
