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

describe("the suite is content with the memory backend", () => {
  it.effect("all cases run and pass", () =>
    Effect.gen(function*() {
      const { capabilities } = yield* Memory.make()
      for (const { name } of LockTest.cases(capabilities)) yield* yield* run(name)
    }))

  it("every case has a name of its own and a law", () => {
    const cases = LockTest.cases({
      clock: "live",
      tenure: "session",
      ttl: "session",
      minTtl: "1 second",
      fifo: false,
      pushesLoss: false
    })
    assert.strictEqual(new Set(cases.map(({ name }) => name)).size, cases.length)
    assert.deepStrictEqual([...new Set(cases.map(({ law }) => law))].toSorted((x, y) => x - y), [
      1,
      2,
      3,
      4,
      5,
      6,
      7,
      8,
      9,
      10
    ])
  })

  it("every case notices some mutant", () => {
    const noticing = new Set(mutants.map(({ caughtBy }) => caughtBy))
    const cases = LockTest.cases(Effect.runSync(Memory.make()).capabilities)
    assert.deepStrictEqual(cases.map(({ name }) => name).filter((name) => !noticing.has(name)), [])
  })
})

describe("the suite notices", () => {
  for (const { caughtBy, make, name, onlyMortal } of mutants) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const exit = yield* run(caughtBy, onlyMortal ? { mortal: make } : { clients: make })
        assert.isTrue(Exit.isFailure(exit), `"${caughtBy}" fails`)
        if (Exit.isFailure(exit)) {
          const error = Cause.squash(exit.cause)
          const reason = error instanceof Error ? error.name : ""
          assert.include(["AssertionError", "LockBackendError"], reason, `it says why: ${Cause.pretty(exit.cause)}`)
        }
      }))
  }
})
