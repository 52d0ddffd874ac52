import { assert, describe, it } from "@effect/vitest"
import type { Rules, Step, TakeVote } from "../src/internal/redlock/quorum.ts"
import { ballot, countRaise, countTake, rules, tally, verdict } from "../src/internal/redlock/quorum.ts"
import { play } from "./redlockSimulation.ts"

const ours = (token: bigint, last = token - 1n): TakeVote => ({ _tag: "Ours", token, last })
const held = (holder: string, millis = 100): TakeVote => ({ _tag: "Held", holder, millis })
const away: TakeVote = { _tag: "Away" }

const ttl = 1000

/** The step after each vote; the votes come from servers 0, 1, ... at once. */
const stepsOf = (nodes: number, votes: ReadonlyArray<TakeVote>, now = 1): ReadonlyArray<Step> => {
  const round = ballot(nodes, 0, ttl, rules)
  return votes.map((vote, node) => countTake(round, node, vote, now))
}

const decisionOf = (nodes: number, votes: ReadonlyArray<TakeVote>): readonly [at: number, Step | undefined] => {
  const steps = stepsOf(nodes, votes)
  const at = steps.findIndex(({ _tag }) => _tag !== "Open")
  return [at + 1, steps[at]]
}

describe("a ballot", () => {
  for (const nodes of [1, 2, 3, 4, 5, 6, 7]) {
    const majority = Math.floor(nodes / 2) + 1
    const minority = nodes - majority

    it(`of ${nodes} is won with ${majority} votes, as soon as they are there`, () => {
      const [at, step] = decisionOf(nodes, Array.from({ length: nodes }, () => ours(7n)))
      assert.deepStrictEqual([at, step], [majority, { _tag: "Granted", token: 7n, first: 7n }])
    })

    it(`of ${nodes} is won in spite of ${minority} that refuse or are away`, () => {
      for (const vote of [held("other"), away]) {
        const votes = [
          ...Array.from({ length: minority }, () => vote),
          ...Array.from({ length: majority }, () => ours(7n))
        ]
        const [at, step] = decisionOf(nodes, votes)
        assert.deepStrictEqual([at, step], [nodes, { _tag: "Granted", token: 7n, first: 7n }])
      }
    })

    it(`of ${nodes} is lost as soon as a majority is out of reach, and it is known whether another has one`, () => {
      for (const vote of [held("other"), away]) {
        const votes = [
          ...Array.from({ length: majority - 1 }, () => ours(7n)),
          ...Array.from({ length: minority + 1 }, () => vote)
        ]
        assert.strictEqual(decisionOf(nodes, votes)[0], nodes, "the last vote decides")
        const early = votes.toReversed()
        const isKnown = vote === away || minority + 1 >= majority
        assert.strictEqual(decisionOf(nodes, early)[0], isKnown ? minority + 1 : nodes, "no more votes than it takes")
      }
    })
  }

  it("with as many votes for the one as for the other ends for both", () => {
    for (const nodes of [2, 4, 6]) {
      const half = Array.from({ length: nodes / 2 })
      const [, step] = decisionOf(nodes, [...half.map(() => ours(1n)), ...half.map(() => held("other", 250))])
      assert.deepStrictEqual(step, { _tag: "Refused", isTie: true, freeInMillis: 250 })
    }
  })

  it("tells a tie from a key that another may hold", () => {
    assert.deepStrictEqual(
      decisionOf(5, [ours(1n), ours(1n), held("a"), held("b"), held("b")])[1],
      { _tag: "Refused", isTie: true, freeInMillis: 100 }
    )
    const [, refused] = decisionOf(5, [held("a"), held("a"), held("a")])
    assert.isFalse(refused?._tag === "Refused" && refused.isTie, "a majority has one holder")
    const [, unsure] = decisionOf(5, [held("a"), held("b"), away])
    assert.isFalse(unsure?._tag === "Refused" && unsure.isTie, "servers that did not vote may have the same holder")
  })

  it("tells when enough of the servers that refuse let go", () => {
    const [, step] = decisionOf(5, [held("a", 300), held("a", 100), held("a", 200)])
    assert.deepStrictEqual(step, { _tag: "Refused", isTie: false, freeInMillis: 100 })
    const [, never] = decisionOf(3, [held("a", -1), held("a", -1)])
    assert.deepStrictEqual(never, { _tag: "Refused", isTie: false, freeInMillis: -1 })
  })

  it("counts a server once", () => {
    const round = ballot(3, 0, ttl, rules)
    for (const _ of [1, 2, 3]) assert.strictEqual(countTake(round, 0, ours(1n), 1)._tag, "Open")
    assert.strictEqual(countTake(round, 1, ours(1n), 1)._tag, "Granted")
  })

  it("is won too late when what is left of the ttl is within the drift", () => {
    const latest = ttl - rules.drift(ttl)
    assert.strictEqual(stepsOf(1, [ours(1n)], latest - 1)[0]?._tag, "Granted")
    assert.strictEqual(stepsOf(1, [ours(1n)], latest)[0]?._tag, "Late")
  })

  it("writes the highest token to a majority before it is given out", () => {
    const round = ballot(5, 0, ttl, rules)
    countTake(round, 0, ours(3n), 1)
    countTake(round, 1, ours(9n, 8n), 1)
    assert.deepStrictEqual(countTake(round, 2, ours(3n), 1), { _tag: "Raise", token: 9n, nodes: [0, 2, 3, 4] })
    assert.strictEqual(countRaise(round, 0, "yes", 1)._tag, "Open")
    assert.strictEqual(countRaise(round, 0, "yes", 1)._tag, "Open", "a server counts once")
    assert.strictEqual(countRaise(round, 1, "yes", 1)._tag, "Open", "a server that had it counts once")
    assert.deepStrictEqual(countRaise(round, 3, "yes", 1), { _tag: "Granted", token: 9n, first: 9n })
  })

  it("gives the tokens that are greater than what its majority knew", () => {
    const step = stepsOf(3, [ours(100n, 40n), ours(100n, 60n)])[1]
    assert.deepStrictEqual(step, { _tag: "Granted", token: 100n, first: 61n })
  })

  it("is lost when the token cannot be written to a majority, or only too late", () => {
    const start = () => {
      const round = ballot(3, 0, ttl, rules)
      countTake(round, 0, ours(3n), 1)
      countTake(round, 1, ours(9n), 1)
      return round
    }
    const refused = start()
    countRaise(refused, 0, "no", 1)
    assert.strictEqual(countRaise(refused, 2, "away", 1)._tag, "Refused")
    const away = start()
    countRaise(away, 0, "away", 1)
    assert.strictEqual(countRaise(away, 2, "away", 1)._tag, "Away")
    assert.strictEqual(countRaise(start(), 0, "yes", ttl)._tag, "Late")
  })
})

describe("a verdict", () => {
  it("is open only as long as it can still come", () => {
    for (const nodes of [1, 2, 3, 4, 5, 6, 7]) {
      for (const kinds of sequences(nodes)) {
        const votes = tally(nodes)
        const majority = rules.majority(nodes)
        kinds.forEach((kind, node) => votes.vote(node, kind))
        const result = verdict(votes, majority)
        assert.notStrictEqual(result, "open", `${kinds.join()} of ${nodes} is decided`)
        assert.strictEqual(result === "yes", votes.yes() >= majority)
        assert.strictEqual(result === "no", votes.no() > nodes - majority)
      }
    }
  })
})

const sequences = (length: number): ReadonlyArray<ReadonlyArray<"yes" | "no" | "away">> =>
  length === 0
    ? [[]]
    : sequences(length - 1).flatMap((rest) => (["yes", "no", "away"] as const).map((k) => [...rest, k]))

describe("histories", () => {
  const sizes = [1, 2, 3, 4, 5]

  /** The first history that shows a violation. */
  const search = (broken: Rules, histories: number) => {
    for (let seed = 1; seed <= histories; seed++) {
      const nodes = sizes[seed % sizes.length] ?? 5
      const { violation } = play(seed, nodes, broken)
      if (violation !== undefined) return `seed ${seed}, ${nodes} servers: ${violation}`
    }
    return undefined
  }

  it("of lost, late and repeated votes have one holder at a time, and tokens that grow", () => {
    let [grants, renewals, writeBacks] = [0, 0, 0]
    for (let seed = 1; seed <= 2000; seed++) {
      const nodes = sizes[seed % sizes.length] ?? 5
      const outcome = play(seed, nodes, rules)
      assert.isUndefined(outcome.violation, `seed ${seed}, ${nodes} servers`)
      grants += outcome.grants
      renewals += outcome.renewals
      writeBacks += outcome.writeBacks
    }
    assert.isAbove(grants, 4000, "there is something to see: grants")
    assert.isAbove(renewals, 1000, "there is something to see: renewals")
    assert.isAbove(writeBacks, 500, "there is something to see: tokens written back")
  }, 60_000)

  const mutants: ReadonlyArray<readonly [name: string, broken: Partial<Rules>, sign: RegExp]> = [
    ["half of the servers are enough", { majority: (n) => Math.max(1, Math.floor(n / 2)) }, /at the same time/],
    ["clocks are taken to agree", { drift: () => 0 }, /at the same time/],
    ["tokens are not written back", { writesBack: false }, /got the token/]
  ]
  for (const [name, broken, sign] of mutants) {
    it(`show when ${name}`, () => {
      assert.match(search({ ...rules, ...broken }, 2000) ?? "nothing", sign)
    }, 60_000)
  }
})
