import { LockTest } from "@dlock/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit } from "effect"
import * as Memory from "./support/memory.ts"
import { mutants } from "./support/mutants/index.ts"

const run = Effect.fnUntraced(function*(name: string, change?: Parameters<typeof Memory.make>[0]) {
  const { capabilities, client } = yield* Memory.make(change)
  const found = LockTest.cases(capabilities).find((one) => one.name === name)
  if (found === undefined || found.lacks !== undefined) return assert.fail(`the suite runs a case "${name}"`)
  return yield* Effect.exit(Effect.provideService(found.effect, LockTest.Clients, { a: client, b: client }))
})

const casesOf = (change: Memory.Change) => LockTest.cases(Effect.runSync(Memory.make(change)).capabilities)

describe("the suite is content with the memory backend", () => {
  for (const isPoor of [false, true]) {
    it.effect(
      isPoor ? "also without the verbs that a backend may leave out" : "all cases pass",
      () =>
        Effect.gen(function*() {
          const { capabilities } = yield* Memory.make({ isPoor })
          for (const { lacks, name } of LockTest.cases(capabilities)) {
            if (lacks === undefined) yield* yield* run(name, { isPoor })
          }
        })
    )
  }

  it("every case runs", () => {
    const [rich, poor] = [casesOf({}), casesOf({ isPoor: true })]
    assert.isTrue(rich.every(({ lacks }, i) => lacks === undefined || poor[i]?.lacks === undefined))
  })

  it("every case has a name of its own and a law", () => {
    const cases = LockTest.cases({
      clock: "live",
      freedBy: "session",
      ttl: "session",
      minTtl: "1 second",
      fifo: false,
      pushesLoss: false
    })
    assert.strictEqual(new Set(cases.map(({ name }) => name)).size, cases.length)
    const laws = new Set(cases.map(({ law }) => law))
    assert.deepStrictEqual(
      laws,
      new Set<LockTest.Law>([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, "inspect", "revoke", "ping", "permits"])
    )
  })

  it("every case notices some mutant", () => {
    const noticing = new Set(mutants.map(({ caughtBy }) => caughtBy))
    assert.deepStrictEqual(casesOf({}).map(({ name }) => name).filter((name) => !noticing.has(name)), [])
  })
})

describe("the suite notices", () => {
  for (const { caughtBy, isPoor, make, name, of = "clients" } of mutants) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const exit = yield* run(caughtBy, { [of]: make, isPoor })
        assert.isTrue(Exit.isFailure(exit), `"${caughtBy}" fails`)
        if (Exit.isFailure(exit)) {
          const error = Cause.squash(exit.cause)
          const reason = error instanceof Error ? error.name : ""
          assert.include(["AssertionError", "LockBackendError"], reason, `it says why: ${Cause.pretty(exit.cause)}`)
        }
      }))
  }
})
