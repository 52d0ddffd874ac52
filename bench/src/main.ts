/**
 * `bench`: dlock beside its peers and the bare drivers, on servers that it starts itself.
 */
import { setup } from "@dlock/test/harness/Setup"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { loadavg } from "node:os"
import { backends } from "./contenders/index.ts"
import { goals } from "./goals.ts"
import { parse } from "./options.ts"
import * as overhead from "./overhead.ts"
import { kept, write } from "./readme.ts"
import * as report from "./report.ts"
import { saveCore } from "./results.ts"
import { runBackend } from "./run.ts"

// In memory, where the data of tests go, a sync to disk costs nothing, and what saves one gains nothing.
process.env.DLOCK_TEST_TMP ??= "/var/tmp"

const main = Effect.gen(function*() {
  const options = parse(process.argv.slice(2), backends)
  const keeps = !options.quick && options.only === undefined
  if (options.parts.includes("core")) {
    const load = loadavg()[0] ?? 0
    const core = yield* overhead.measure
    yield* Console.log(overhead.report(core))
    if (keeps) yield* Effect.sync(() => saveCore(load, core))
  }
  if (options.parts.some((part) => part !== "core" && part !== "goals")) {
    yield* setup
    for (const backend of options.backends) yield* runBackend(backend, options)
  }
  if (options.parts.includes("goals")) {
    yield* Console.log(report.goals(goals(kept())))
    if (keeps) yield* Effect.sync(write)
  }
})

NodeRuntime.runMain(main)
