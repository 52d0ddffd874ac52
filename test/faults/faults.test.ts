/**
 * The short run: every backend on real servers, with workers that die and freeze, and a few faults drawn from a seed.
 * `DLOCK_FAULTS_SEED` repeats one; `pnpm test:faults` runs longer.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Semaphore } from "effect"
import * as Report from "./Report.ts"
import { run } from "./Run.ts"
import { targetNames } from "./targets.ts"

const seed = Number(process.env.DLOCK_FAULTS_SEED)
const seconds = Number(process.env.DLOCK_FAULTS_SECONDS ?? 7)

// Most of a run is waiting; more of them at once would only test the machine.
const atOnce = Semaphore.makeUnsafe(2)

describe.concurrent(`faults, DLOCK_FAULTS_SEED=${seed}`, () => {
  for (const name of Report.runnable(targetNames)) {
    it.live(name, () =>
      Effect.gen(function*() {
        const outcome = yield* run(name, { seed, seconds, pairs: 2000, leakFaults: 10 })
        yield* Report.save([outcome])
        assert.deepStrictEqual(Report.violations(outcome), [], `DLOCK_FAULTS_SEED=${seed}`)
      }).pipe(atOnce.withPermit), 600_000)
  }
})
