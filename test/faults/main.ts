/**
 * `test:faults`: runs faults against backends, prints a table, and writes it to a file.
 *
 *     pnpm test:faults [--seed n] [--seconds n] [--pairs n] [--leak-faults n] [backend...]
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { parseArgs } from "node:util"
import * as Setup from "../harness/Setup.ts"
import * as Report from "./Report.ts"
import { type Outcome, run } from "./Run.ts"
import { type TargetName, targetNames } from "./targets.ts"

const { positionals, values } = parseArgs({
  // pnpm passes its own separator on.
  args: process.argv.slice(2).filter((arg) => arg !== "--"),
  allowPositionals: true,
  options: {
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    seconds: { type: "string", default: "60" },
    pairs: { type: "string", default: "20000" },
    "leak-faults": { type: "string", default: "200" }
  }
})

const say = (text: string) => Effect.sync(() => process.stdout.write(`${text}\n`))

const isTarget = (name: string): name is TargetName => targetNames.some((target) => target === name)

const program = Effect.gen(function*() {
  const unknown = positionals.filter((name) => !isTarget(name))
  const [seed, seconds] = [Number(values.seed), Number(values.seconds)]
  if (unknown.length > 0 || !Number.isInteger(seed) || !(seconds > 0)) {
    yield* say(
      `usage: test:faults [--seed n] [--seconds n] [--pairs n] [--leak-faults n] [${targetNames.join("|")}...]`
    )
    process.exitCode = 2
    return
  }
  for (const sentence of yield* Setup.setup) yield* say(sentence)
  const chosen = positionals.filter(isTarget)
  const outcomes: Array<Outcome> = []
  for (const name of Report.runnable(chosen.length === 0 ? targetNames : chosen)) {
    yield* say(`${name}, seed ${seed}, ${seconds} seconds`)
    const outcome = yield* run(name, {
      seed,
      seconds,
      pairs: Number(values.pairs),
      leakFaults: Number(values["leak-faults"])
    })
    outcomes.push(outcome)
    for (const line of Report.violations(outcome)) yield* say(line)
  }
  yield* say(`\n${Report.table(outcomes)}\n`)
  const leaks = Report.leakTable(outcomes)
  if (leaks !== undefined) yield* say(`${leaks}\n`)
  yield* say(`written to ${yield* Report.save(outcomes)}`)
  if (outcomes.some(({ violations }) => violations.length > 0)) process.exitCode = 1
})

NodeRuntime.runMain(program)
