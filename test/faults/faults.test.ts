/**
 * The short run: every backend on real servers, with workers that die and freeze, and a few faults, always the same ones.
 * `DLOCK_FAULTS_SEED` and `DLOCK_FAULTS_SECONDS` choose others; `pnpm test:faults` runs longer.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Semaphore } from "effect"
import type { Violation } from "./checks/Promises.ts"
import * as Report from "./Report.ts"
import { run } from "./Run.ts"
import { type TargetName, targetNames } from "./targets.ts"

const seed = Number(process.env.DLOCK_FAULTS_SEED ?? 8)
const seconds = Number(process.env.DLOCK_FAULTS_SECONDS ?? 7)

/** With the wait for the others. */
const longest = 1_800_000

// Most of a run is waiting; more of them at once would only test the machine.
const atOnce = Semaphore.makeUnsafe(3)

/** One of each package: what several servers have in common with one is counted once. */
const counted: ReadonlyArray<TargetName> = ["memory", "redis", "redlock", "etcd", "mariadb", "postgres", "zookeeper"]

/** What a busy machine can bring about by itself. The same faults once more show whether it did. */
const ofTime: ReadonlyArray<Violation["law"]> = ["slow", "first come, first served", "turn", "leak", "nothing happened"]

describe.concurrent(`faults, DLOCK_FAULTS_SEED=${seed}`, () => {
  for (const name of Report.runnable(targetNames)) {
    const pairs = counted.includes(name) ? 2000 : 0
    const once = Effect.tap(run(name, { seed, seconds, pairs, leakFaults: 10 }), (outcome) => Report.save([outcome]))
    it.live(name, () =>
      Effect.gen(function*() {
        const first = yield* once
        const isOfTime = first.violations.length > 0 && first.violations.every(({ law }) => ofTime.includes(law))
        const outcome = isOfTime ? yield* once : first
        assert.deepStrictEqual(Report.violations(outcome), [], `DLOCK_FAULTS_SEED=${seed}`)
      }).pipe(atOnce.withPermit), longest)
  }
})
