/**
 * `bench`: dlock beside its peers and the bare drivers, on servers that it starts itself.
 */
import { setup } from "@dlock/test/harness/Setup"
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { backends } from "./contenders/index.ts"
import { parse } from "./options.ts"
import { runBackend } from "./run.ts"

const main = Effect.gen(function*() {
  const options = parse(process.argv.slice(2), backends)
  yield* setup
  for (const backend of options.backends) yield* runBackend(backend, options)
})

NodeRuntime.runMain(main)
