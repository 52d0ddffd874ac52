/**
 * `bench`: dlock beside its peers and the bare drivers, on servers that it starts itself.
 */
import { setup } from "@dlock/test/harness/Setup"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { loadavg } from "node:os"
import { backends } from "./contenders/index.ts"
import { parse } from "./options.ts"
import * as overhead from "./overhead.ts"
import { saveCore } from "./results.ts"
import { runBackend } from "./run.ts"

const main = Effect.gen(function*() {
  const options = parse(process.argv.slice(2), backends)
  if (options.parts.includes("core")) {
    const load = loadavg()[0] ?? 0
    const core = yield* overhead.measure
    yield* Console.log(overhead.report(core))
    if (!options.quick) yield* Effect.sync(() => saveCore(load, core))
  }
  yield* setup
  for (const backend of options.backends) yield* runBackend(backend, options)
})

NodeRuntime.runMain(main)
