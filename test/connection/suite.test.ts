/**
 * The connection suite on an edge that is sound, and each of its cases on edges that are not.
 */
import { ConnectionTest } from "@dlock/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit } from "effect"
import { toyAdapter } from "./toyAdapter.ts"
import type { Fault } from "./toyLock.ts"
import type { Setup } from "./toyServer.ts"

ConnectionTest.suite("a sound edge", toyAdapter())

/** A fault, and the cases that must find it. */
interface Broken {
  readonly faults?: ReadonlyArray<Fault>
  readonly setup?: Setup
  readonly cases: ReadonlyArray<RegExp>
}

const broken: ReadonlyArray<Broken> = [
  { faults: ["takes any options"], cases: [/^options that are wrong/] },
  { faults: ["overlooks near misses"], cases: [/^the configuration leads/] },
  { faults: ["names no address"], cases: [/^nothing there/] },
  { faults: ["waits without a limit"], cases: [/says nothing/, /^a frozen server/, /^no TLS where/] },
  { faults: ["loops without a pause"], cases: [/hangs up is asked again/, /^an outage is met with a pause/] },
  { faults: ["throws on a strange greeting"], cases: [/speaks of mail/, /speaks of the web/] },
  { faults: ["tells the password"], cases: [/^a wrong password/] },
  { faults: ["remembers the password"], cases: [/^the right password/] },
  { faults: ["dies of a bad secret"], cases: [/^an effect without a password/] },
  { faults: ["needs a right too many"], cases: [/least rights/] },
  { faults: ["ignores the authority"], cases: [/^TLS with an authority/] },
  { faults: ["says nothing of certificates"], cases: [/^a certificate that is not trusted/] },
  { faults: ["asks under another name again"], cases: [/^a lost reply to an acquire/] },
  { faults: ["releases once"], cases: [/^a lost reply to a release/] },
  { faults: ["forgets to leave the line"], setup: { sticky: true }, cases: [/leaves no place in line/] },
  { setup: { forgetful: true }, cases: [/arrives after its release/] },
  {
    faults: ["never connects again"],
    cases: [/^back after an outage of a second/, /^many layers/, /^a waiter is served/]
  },
  { faults: ["trusts the wall clock"], cases: [/^a clock that is set/] },
  { faults: ["leaves its connection open"], cases: [/^nothing is open after/] },
  { faults: ["quits without a time limit"], cases: [/^a layer closes while/] },
  {
    faults: ["leaves a connection that is not waited for"],
    cases: [/that is interrupted while it connects/, /bytes that mean nothing/]
  },
  { faults: ["closes what it was given"], cases: [/^a driver of the caller/] }
]

describe("an edge that", { concurrent: true }, () => {
  for (const { cases, faults = [], setup } of broken) {
    for (const { effect, name, slow } of ConnectionTest.cases(toyAdapter({ faults, ...(setup && { setup }) }))) {
      // An outage of a minute is one of a second that takes longer.
      if (slow || !cases.some((pattern) => pattern.test(name))) continue
      it.live(`${faults.join(", ") || JSON.stringify(setup)} is found by: ${name}`, () =>
        Effect.gen(function*() {
          const exit = yield* Effect.exit(effect)
          assert.isTrue(Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause), "the case fails")
        }))
    }
  }

  it("is found has one for each case", () => {
    const patterns = broken.flatMap(({ cases }) => cases)
    for (const { name, slow } of ConnectionTest.cases(toyAdapter())) {
      if (!slow) assert.isTrue(patterns.some((pattern) => pattern.test(name)), name)
    }
  })
})
