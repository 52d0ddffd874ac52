/**
 * The checker is pure, and it can fail: histories that must, each for its own reason, and those like them that must not.
 */
import { assert, describe, it } from "@effect/vitest"
import { check } from "./Checker.ts"
import type { Promises, Violation } from "./checks/Promises.ts"
import { longestWait } from "./checks/Waits.ts"
import { assemble, type Entry, type Fault, type History, merge, parse, type Write, type Written } from "./History.ts"

const promises: Promises = {
  ttl: 2000,
  granularity: 0,
  deadWaiter: 0,
  commandTimeout: 1000,
  goesWithConnection: false,
  prompt: 800,
  fifo: true,
  turn: 20
}
const limit = longestWait(promises)
const permitLimit = 2
const stillThere = 1_000_000

type Step = readonly [at: number, token: number, until: number, owner?: string]

let owners = 0

/** An attempt that held from `at` until `until`, and released. Without an owner it has a hold of its own. */
const held = (
  a: number,
  asked: number,
  [at, token, until, owner = `owner/${++owners}`]: Step,
  key = "k"
): ReadonlyArray<Entry> => [
  { e: "asked", t: asked, a, key, layer: 0 },
  { e: "held", t: at, a, token: String(token), owner },
  { e: "left", t: until, a, how: "done" },
  { e: "ended", t: until + 1, a, result: "released" }
]

const lost = (a: number, asked: number, [at, token, until]: Step): ReadonlyArray<Entry> => [
  ...held(a, asked, [at, token, until]).slice(0, 2),
  { e: "left", t: until, a, how: "interrupted" },
  { e: "ended", t: until + 1, a, result: "lost" }
]

/** The same, with the counter read and written. */
const counted = (log: ReadonlyArray<Entry>, a: number, n: number): ReadonlyArray<Entry> => [
  ...log.slice(0, 2),
  { e: "read", t: log[1]?.e === "held" ? log[1].t : 0, a, n },
  { e: "wrote", t: (log[1]?.e === "held" ? log[1].t : 0) + 5, a, n: n + 1 },
  ...log.slice(2)
]

const stall = (from: number, to: number): Entry => ({ e: "stall", from, t: to })
const bye: Entry = { e: "bye", t: stillThere }

const history = (
  logs: ReadonlyArray<ReadonlyArray<Entry>>,
  more: {
    readonly killed?: Readonly<Record<number, number>>
    readonly faults?: ReadonlyArray<Fault>
    readonly register?: ReadonlyArray<Write>
    readonly ledger?: ReadonlyArray<Written>
  } = {}
): History => {
  const parts = logs.map((log, slot) => assemble({ name: `w${slot}`, slot, killed: more.killed?.[slot] }, log))
  return {
    workers: parts.map(({ worker }) => worker),
    attempts: parts.flatMap(({ attempts }) => attempts),
    faults: more.faults ?? [],
    register: more.register ?? [],
    ledger: more.ledger ?? []
  }
}

const lawsOf = (one: History, what: Promises = promises): ReadonlyArray<Violation["law"]> =>
  [...new Set(check(one, what, permitLimit).violations.map(({ law }) => law))].toSorted()

const breaks = (one: History, ...laws: ReadonlyArray<Violation["law"]>) =>
  assert.deepStrictEqual(lawsOf(one), laws.toSorted())

describe("keeps every law", () => {
  it("when one comes after the other", () =>
    breaks(history([
      [...held(1, 0, [10, 1, 20]), ...held(2, 25, [50, 3, 60]), bye],
      [...held(1, 5, [30, 2, 40]), bye]
    ])))

  it("when two hold two keys at once", () =>
    breaks(history([[...held(1, 0, [10, 1, 500]), bye], [...held(1, 0, [20, 1, 400], "other"), bye]])))
})

describe("exclusion", () => {
  it("two at once", () =>
    breaks(
      history([[...held(1, 0, [10, 1, 30]), bye], [...held(1, 5, [29, 2, 40]), bye]]),
      "exclusion",
      "unreported loss"
    ))

  it("two at once, and the first was told too late", () =>
    breaks(history([[...lost(1, 0, [10, 1, 30]), bye], [...held(1, 5, [29, 2, 40]), bye]]), "exclusion"))

  it("is excused while the first stands still", () => {
    const one = history([
      [...lost(1, 0, [10, 1, 3010]), stall(100, 3000), bye],
      [...held(1, 5, [2100, 2, 2200]), ...held(2, 2210, [2300, 3, 2400]), bye]
    ])
    breaks(one)
    assert.strictEqual(check(one, promises, permitLimit).figures.frozen, 1)
  })

  it("is not excused by a stall that is over before", () =>
    breaks(
      history([[...lost(1, 0, [10, 1, 3010]), stall(100, 2000), bye], [...held(1, 5, [2100, 2, 2200]), bye]]),
      "exclusion"
    ))

  it("is not excused by a stall that begins after", () =>
    breaks(
      history([[...lost(1, 0, [10, 1, 3010]), stall(2150, 3000), bye], [...held(1, 5, [2100, 2, 2200]), bye]]),
      "exclusion"
    ))

  it("is excused for no longer than the stall", () =>
    breaks(
      history([[...lost(1, 0, [10, 1, 3500]), stall(100, 3000), bye], [...held(1, 5, [2100, 2, 2200]), bye]]),
      "exclusion"
    ))

  it("a frozen process that is never told", () =>
    breaks(
      history([[...held(1, 0, [10, 1, 3010]), stall(100, 3000), bye], [...held(1, 5, [2100, 2, 2200]), bye]]),
      "unreported loss"
    ))

  it("a holder that died does not hold any more", () =>
    breaks(
      history([held(1, 0, [10, 1, 20]).slice(0, 2), [...held(1, 5, [2100, 2, 2200]), bye]], { killed: { 0: 15 } })
    ))

  it("a holder that lived on when its key was given away, and was killed then", () =>
    breaks(
      history([held(1, 0, [10, 1, 20]).slice(0, 2), [...held(1, 5, [2100, 2, 2200]), bye]], { killed: { 0: 2150 } }),
      "exclusion"
    ))

  it("a process that stopped itself, and was killed before it could tell", () =>
    breaks(history(
      [[...held(1, 0, [10, 1, 20]).slice(0, 2), { e: "stopping", t: 12 }], [...held(1, 5, [2100, 2, 2200]), bye]],
      { killed: { 0: 2150 } }
    )))

  const wiped: Fault = { name: "wipe", kind: "server", forgets: "always", from: 50, to: 100 }

  it("a server that forgot may give the key to another, until the ttl is over", () => {
    const logs = [[...lost(1, 0, [10, 1, 1500]), bye], [...held(1, 5, [200, 2, 300]), bye]]
    breaks(history(logs, { faults: [wiped] }))
    breaks(history(logs, { faults: [{ ...wiped, forgets: undefined }] }), "exclusion")
    breaks(
      history([[...lost(1, 0, [10, 1, 4000]), bye], [...held(1, 5, [200, 2, 300]), bye]], { faults: [wiped] }),
      "exclusion"
    )
  })

  it("a server that forgot is no excuse for a process that could hear of it", () => {
    const logs = [[...lost(1, 0, [10, 1, 1500]), bye], [...held(1, 5, [200, 2, 300]), bye]]
    const restarted: Fault = { ...wiped, forgets: "unheard" }
    const silence: Fault = { name: "silence", kind: "network", slot: 0, from: 20, to: 500 }
    breaks(history(logs, { faults: [restarted] }), "exclusion")
    breaks(history(logs, { faults: [restarted, { ...silence, slot: 1 }] }), "exclusion")
    breaks(history(logs, { faults: [restarted, silence] }))
  })

  it("a lock that goes with its connection, for the moment in which the client hears of it", () => {
    const mysql = { ...promises, goesWithConnection: true }
    const cut: Fault = { name: "cut", kind: "network", slot: 0, from: 205, to: 300 }
    const robbed = (until: number) => [[...lost(1, 0, [10, 1, until]), bye], [...held(1, 5, [210, 2, 300]), bye]]
    const one = history(robbed(230), { faults: [cut] })
    assert.deepStrictEqual(lawsOf(one, mysql), [])
    assert.strictEqual(check(one, mysql, permitLimit).figures.unheard, 1)
    breaks(one, "exclusion")
    assert.deepStrictEqual(lawsOf(history(robbed(280), { faults: [cut] }), mysql), ["exclusion"], "for too long")
    assert.deepStrictEqual(lawsOf(history(robbed(230)), mysql), ["exclusion"], "nothing was cut")
    assert.deepStrictEqual(
      lawsOf(history(robbed(230), { faults: [{ ...cut, slot: 1 }] }), mysql),
      ["exclusion"],
      "another worker was cut off"
    )
    const untold = [[...held(1, 0, [10, 1, 230]), bye], [...held(1, 5, [210, 2, 300]), bye]]
    assert.deepStrictEqual(
      lawsOf(history(untold, { faults: [cut] }), mysql),
      ["exclusion", "unreported loss"],
      "the first was never told"
    )
  })

  it("a success that undoes a success", () => {
    const first = counted(held(1, 0, [10, 1, 20]), 1, 0)
    breaks(history([[...first, bye], [...counted(held(1, 5, [30, 2, 40]), 1, 1), bye]]))
    breaks(history([[...first, bye], [...counted(held(1, 5, [30, 2, 40]), 1, 0), bye]]), "lost update")
    breaks(history([[...first, bye], [...counted(lost(1, 5, [30, 2, 40]), 1, 0), bye]]))
  })
})

describe("fencing", () => {
  it("a token that is smaller than one before", () =>
    breaks(history([[...held(1, 0, [10, 5, 20]), bye], [...held(1, 5, [30, 4, 40]), bye]]), "token order"))

  it("a lease that was passed the key has a token of its own", () => {
    const first = held(1, 0, [10, 5, 20, "h"])
    const passed = history([[...first, ...held(2, 5, [21, 6, 30, "h"]), bye]])
    breaks(passed)
    assert.strictEqual(check(passed, promises, permitLimit).figures.passes, 1)
    breaks(history([[...first, ...held(2, 5, [21, 5, 30, "h"]), bye]]), "token order")
  })

  it("two leases of one hold at once", () =>
    breaks(
      history([[...held(1, 0, [10, 1, 30, "h"]), ...held(2, 5, [29, 2, 40, "h"]), bye]]),
      "exclusion",
      "unreported loss"
    ))

  it("a token that was there before", () =>
    breaks(history([[...held(1, 0, [10, 5, 20]), bye], [...held(1, 5, [30, 5, 40]), bye]]), "token order"))

  it("a grant that its process slept through is believed late, and then never for long", () =>
    breaks(history([[stall(10, 3000), ...lost(1, 0, [3001, 1, 3005]), bye], [...held(1, 5, [2500, 2, 2600]), bye]])))

  it("a fenced write that a smaller token made after a greater one, whatever stood still", () => {
    const [one, other] = [{ key: "k", owner: "a/1", token: 1n }, { key: "k", owner: "b/2", token: 2n }]
    const calm = [bye]
    breaks(history([calm], { ledger: [{ ...one, id: 1n, seen: 0n }, { ...other, id: 2n, seen: 1n }] }))
    breaks(history([calm], { ledger: [{ ...one, id: 1n, seen: 0n }, { ...other, id: 2n, key: "other", seen: 0n }] }))
    const frozen = [...lost(1, 0, [10, 1, 3010]), stall(100, 3000), bye]
    const unseen = [{ ...one, id: 1n, seen: 0n }, { ...other, id: 2n, seen: 0n }]
    breaks(history([frozen], { ledger: unseen }), "write order")
    const later = [{ ...one, id: 3n, seen: 2n }, { ...other, id: 2n, seen: 0n }]
    breaks(history([frozen], { ledger: later }), "write order")
  })

  it("a register that took a smaller token", () =>
    breaks(
      history([[...held(1, 0, [10, 1, 20]), bye]], {
        register: [{ at: 1, key: "k", token: 2n }, { at: 2, key: "other", token: 1n }, { at: 3, key: "k", token: 1n }]
      }),
      "register order"
    ))

  it("a register that refuses a holder that is never told of a loss", () => {
    const refused: Entry = { e: "refused", t: 15, a: 1 }
    breaks(history([[...held(1, 0, [10, 1, 20]), refused, bye]]), "register refused a holder")
    breaks(history([[...lost(1, 0, [10, 1, 20]), refused, bye]]))
  })
})

describe("waits", () => {
  it("a key that is not held and is waited for", () => {
    const one = history([[...held(1, 0, [10, 1, 20]), bye], [...held(1, 5, [limit + 100, 2, limit + 200]), bye]])
    breaks(one, "slow", "stuck")
    assert.strictEqual(check(one, promises, permitLimit).figures.longestGap, limit + 80)
  })

  it("is excused while a fault of the waiter lasts, and not by one of another worker", () => {
    const logs = [[...held(1, 0, [10, 1, 20]), bye], [...held(1, 5, [limit + 100, 2, limit + 200]), bye]]
    const fault: Fault = { name: "silence", kind: "network", slot: 1, from: 30, to: 9000 }
    breaks(history(logs, { faults: [fault] }))
    breaks(history(logs, { faults: [{ ...fault, slot: undefined }] }))
    breaks(history(logs, { faults: [{ ...fault, slot: 0 }] }), "stuck")
  })

  it("a key that stays taken for a while after its release, where nothing was disturbed", () => {
    const waited = (ms: number) => [[...held(1, 0, [10, 1, 20]), bye], [...held(1, 15, [20 + ms, 2, 30 + ms]), bye]]
    breaks(history(waited(promises.prompt - 1)))
    breaks(history(waited(promises.prompt + 1)), "slow")
    const fault: Fault = { name: "silence", kind: "network", slot: 0, from: 0, to: 10 }
    breaks(history(waited(promises.prompt + 1), { faults: [fault] }))
    breaks(history(waited(promises.prompt + 1), { faults: [{ ...fault, aftermath: 0 }] }), "slow")
    const middle: Fault = { ...fault, from: 400, to: 450, aftermath: 0 }
    breaks(history(waited(promises.prompt + 1), { faults: [middle] }))
    breaks(history(waited(2000), { faults: [middle] }), "slow")
    breaks(history([...waited(2000), [stall(400, 450), bye]]), "slow")
    breaks(history([...waited(2000), [stall(400, 1400), bye]]))
    breaks(history([...waited(2000), held(1, 0, [1, 1, 2], "other")], { killed: { 2: 500 } }))
  })

  it("a process that stands still does not hold the key against the others", () =>
    breaks(
      history([
        [...lost(1, 0, [10, 1, limit * 2]), stall(15, limit * 2), bye],
        [...held(1, 5, [limit + 100, 2, limit + 200]), bye]
      ]),
      "stuck"
    ))

  it("a waiter that came late did not wait before", () =>
    breaks(history([[...held(1, 0, [10, 1, 20]), bye], [...held(1, limit, [limit + 100, 2, limit + 200]), bye]])))

  it("a waiter that never ends", () => breaks(history([[{ e: "asked", t: 0, a: 1, key: "k", layer: 0 }]]), "stuck"))

  it("a waiter that died does not wait", () =>
    breaks(history([[{ e: "asked", t: 0, a: 1, key: "k", layer: 0 }]], { killed: { 0: 10 } })))

  it("a waiter that others overtake again and again", () => {
    const others = Array.from({ length: 60 }, (_, i) => held(i + 1, i * 1000, [i * 1000 + 10, i + 1, i * 1000 + 900]))
    breaks(
      history([[...others.flat(), bye], [...held(1, 5, [60_100, 100, 60_200]), bye]]),
      "first come, first served",
      "starved"
    )
  })
})

const gaveUp = (t: number): Entry => ({ e: "ended", t, a: 1, result: "timeout" })

describe("the line", () => {
  // The third comes last and is served second.
  const overtaken = [
    [...held(1, 0, [10, 1, 1000]), bye],
    [...held(1, 100, [1200, 3, 1300]), bye],
    [...held(1, 600, [1050, 2, 1100]), bye]
  ]

  it("a waiter that comes later and is served before", () => {
    breaks(history(overtaken), "first come, first served")
    assert.deepStrictEqual(lawsOf(history(overtaken), { ...promises, fifo: false }), [])
  })

  it("a waiter that was overtaken may still wait when something happens, or give up", () => {
    const waits: Entry = { e: "asked", t: 100, a: 1, key: "k", layer: 0 }
    const [first = [], , third = []] = overtaken
    const late: Fault = { name: "cut", kind: "network", slot: 1, from: 1100, to: 1200 }
    breaks(history(overtaken, { faults: [late] }), "first come, first served")
    breaks(history([first, [waits], third], { killed: { 1: 1300 } }), "first come, first served")
    breaks(history([first, [waits, gaveUp(1300), bye], third]), "first come, first served")
    breaks(history([first, [waits, gaveUp(1040), bye], third]))
  })

  it("is judged only where nothing was disturbed", () => {
    breaks(history(overtaken, { faults: [{ name: "cut", kind: "network", slot: 1, from: 200, to: 300 }] }))
    breaks(history([...overtaken, [stall(400, 500), bye]]))
  })

  it("of two that come at once either may be first", () =>
    breaks(history([
      [...held(1, 0, [10, 1, 1000]), bye],
      [...held(1, 100, [1200, 3, 1300]), bye],
      [...held(1, 150, [1050, 2, 1100]), bye]
    ])))

  it("a process serves its own line for a turn, and no longer", () => {
    const another = [...held(1, 100, [1200, 9, 1300]), bye]
    const turn = (ms: number) => [
      [...held(1, 0, [10, 1, 1000]), bye],
      [...held(1, 50, [1010, 2, 1010 + ms, "h"]), ...held(2, 700, [1011 + ms, 3, 1190, "h"]), bye],
      another
    ]
    breaks(history(turn(10)))
    breaks(history(turn(160)))
    breaks(history(turn(175)), "turn")
    breaks(history([...turn(175), [stall(1015, 1200), bye]]))
  })

  it("a process that came late does not serve its own line first", () =>
    breaks(
      history([
        [...held(1, 0, [10, 1, 1000]), bye],
        [...held(1, 100, [1200, 4, 1300]), bye],
        [...held(1, 600, [1050, 2, 1055, "h"]), ...held(2, 620, [1056, 3, 1060, "h"]), bye]
      ]),
      "first come, first served"
    ))

  it("a process serves its own line in its order", () =>
    breaks(
      history([[
        ...held(1, 0, [10, 1, 1000, "h"]),
        ...held(2, 300, [1001, 2, 1005, "g"]),
        ...held(3, 20, [1006, 3, 1010, "g"]),
        bye
      ]]),
      "first come, first served"
    ))

  it("the place of one that gave up is that of the next of its process", () => {
    const first = [...held(1, 0, [10, 1, 1000]), bye]
    const other = [...held(1, 300, [1200, 3, 1300]), bye]
    const leaver: Entry = { e: "asked", t: 100, a: 1, key: "k", layer: 0 }
    breaks(history([first, other, [leaver, gaveUp(700), ...held(2, 600, [1050, 2, 1100]), bye]]))
    breaks(
      history([first, other, [leaver, gaveUp(550), ...held(2, 600, [1050, 2, 1100]), bye]]),
      "first come, first served"
    )
  })

  it("one that stands behind others of its own process comes when they are done", () =>
    breaks(history([
      [...held(1, 0, [10, 1, 1000]), ...held(2, 20, [1150, 3, 1200]), bye],
      [...held(1, 500, [1050, 2, 1100]), bye]
    ])))
})

/** Permits of `k`, of which there are two. */
const uses = (
  log: ReadonlyArray<Entry>,
  permit: number,
  permits = 1
): ReadonlyArray<Entry> =>
  log.map((entry): Entry => {
    if (entry.e === "asked") return { ...entry, role: "permits", permits }
    return entry.e === "held" ? { ...entry, permit } : entry
  })

/** One that stood still from the grant to just after its section began, which goes on until then. */
const beginsLate = (until: number): History =>
  history([
    [...uses(lost(1, 0, [2990, 1, until]), 0), stall(10, 3000), bye],
    ...[0, 1].map((permit) => [...uses(held(1, 5, [2100, 2 + permit, 4000]), permit), bye])
  ])

describe("permits", () => {
  it("so many at once, and one after the other", () =>
    breaks(history([
      [...uses(held(1, 0, [10, 1, 30]), 0), ...uses(held(2, 31, [40, 2, 50]), 1, 2), bye],
      [...uses(held(1, 0, [10, 1, 30]), 1), ...uses(held(2, 31, [60, 3, 70]), 1), bye]
    ])))

  it("one more than there are", () => {
    const third = [...uses(held(1, 0, [20, 1, 30]), 2), bye]
    const two = [0, 1].map((permit) => [...uses(held(1, 0, [10, 1, 30]), permit), bye])
    breaks(history([...two, third]), "limit")
    const several = [...uses(held(1, 0, [10, 1, 30]), 0, 2), bye]
    breaks(history([several, [...uses(held(1, 0, [20, 1, 30]), 1), bye]]), "limit")
  })

  it("one more is excused while one stands still", () =>
    breaks(history([
      [...uses(lost(1, 0, [10, 1, 3010]), 0), stall(100, 3000), bye],
      [...uses(held(1, 0, [10, 1, 4000]), 1), bye],
      [...uses(held(1, 5, [2100, 2, 2200]), 0), bye]
    ])))

  it("one more is excused that begins as its process goes on", () => {
    breaks(beginsLate(3010))
    breaks(beginsLate(3500), "exclusion", "limit")
  })

  it("the same one twice", () =>
    breaks(
      history([[...uses(held(1, 0, [10, 1, 30]), 0), bye], [...uses(held(1, 5, [29, 2, 40]), 0), bye]]),
      "exclusion",
      "unreported loss"
    ))

  it("one that is waited for without end", () =>
    breaks(history([[...uses(held(1, 0, [10, 1, 30]).slice(0, 1), 0)]]), "stuck"))
})

const leads = (log: ReadonlyArray<Entry>): ReadonlyArray<Entry> =>
  log.map((entry): Entry => entry.e === "asked" ? { ...entry, role: "leader" } : entry)

describe("leaders", () => {
  it("never two", () =>
    breaks(
      history([[...leads(lost(1, 0, [10, 1, 50])), bye], [...leads(held(1, 5, [20, 2, 90])), bye]]),
      "exclusion"
    ))

  it("are elected some time after they ask", () =>
    breaks(history([
      [...leads(held(1, 0, [10, 1, 50])), ...leads(held(2, 51, [4000, 3, 4100])), bye],
      [...leads(held(1, 200, [1000, 2, 1500])), bye]
    ])))
})

describe("a log", () => {
  it("that a kill cut short", () => {
    const lines = held(1, 0, [10, 1, 20]).map((entry) => JSON.stringify(entry)).join("\n")
    assert.strictEqual(parse(lines).length, 3)
    assert.strictEqual(parse(`${lines}\n`).length, 4)
  })

  it("joins stalls that nearly touch", () =>
    assert.deepStrictEqual(
      merge([{ from: 50, to: 60 }, { from: 0, to: 30 }, { from: 200, to: 300 }]),
      [{ from: 0, to: 60 }, { from: 200, to: 300 }]
    ))
})
