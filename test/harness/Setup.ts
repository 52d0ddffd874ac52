/**
 * Brings in what is missing to start the servers, and bundles the programs. It is done once per run, before the tests.
 */
import { NodeServices } from "@effect/platform-node"
import { Effect, Stream } from "effect"
import { ChildProcess } from "effect/process"
import * as Fs from "node:fs"
import { bundle } from "./Bundle.ts"
import { cache, catalog, kinds } from "./Catalog.ts"
import type { Entry, Kind } from "./Catalog.ts"
import * as Docker from "./Docker.ts"
import { HarnessError } from "./HarnessError.ts"
import { script } from "./Process.ts"
import * as Program from "./Program.ts"

type Missing = ReadonlyArray<readonly [Kind, Entry]>

const missing: Effect.Effect<Missing> = Effect.sync(() => {
  Program.lookAgain()
  return kinds.filter((kind) => !Program.available(kind)).map((kind) => [kind, catalog[kind]])
})

const say = (text: string) => Effect.sync(() => process.stderr.write(`${text}\n`))

/** Runs a program; says whether it succeeded, and what it wrote. */
const run = Effect.fnUntraced(function*(program: string, ...args: ReadonlyArray<string>) {
  const child = yield* ChildProcess.make(program, args, { stdin: "ignore" })
  const output = yield* child.all.pipe(Stream.decodeText, Stream.mkString)
  return { succeeded: (yield* child.exitCode) === 0, output: output.trim() }
}, Effect.scoped)

const lock = `${cache}/lock`

/** Fetches images. */
const pull = Effect.fnUntraced(function*(entries: Missing) {
  if (!Docker.isRunning()) return
  for (const image of new Set(entries.flatMap(([, { docker }]) => docker?.image ?? []))) {
    yield* say(`pulling ${image}`)
    const { output, succeeded } = yield* run("docker", "pull", "--quiet", image)
    if (!succeeded) yield* say(output)
  }
})

/** Installs the distribution's packages. */
const install = Effect.fnUntraced(function*(entries: Missing) {
  const packages = entries.flatMap(([, { install }]) => install ?? [])
  if (packages.length === 0 || process.getuid?.() !== 0 || !Fs.existsSync("/usr/bin/apt-get")) return
  yield* say(`installing ${packages.join(" ")}`)
  const { output, succeeded } = yield* run("/bin/sh", script("install.sh"), lock, ...packages)
  if (!succeeded) yield* say(output)
})

/** Unpacks newer packages beside the machine's own. */
const unpack = Effect.fnUntraced(function*(entries: Missing) {
  const wanted = entries.flatMap(([kind, { title, unpack }]) => unpack === undefined ? [] : [{ kind, title, unpack }])
  if (wanted.length === 0 || !Fs.existsSync("/usr/bin/apt-get")) return
  yield* say(`fetching ${wanted.map(({ title }) => title).join(", ")}`)
  const pairs = wanted.map(({ kind, unpack }) => `${kind}=${unpack}`)
  const { output } = yield* run("/bin/sh", script("unpack.sh"), cache, ...pairs)
  const reason = /^E: (.*)$/m.exec(output)?.[1] ?? output
  for (const [kind, { title }] of yield* missing) {
    if (!wanted.some((one) => one.kind === kind)) continue
    yield* Effect.sync(() => Fs.writeFileSync(Program.problemFile(kind), `${title} could not be fetched: ${reason}\n`))
  }
})

const problems = (entries: Missing) => entries.flatMap(([kind]) => Program.problem(kind) ?? [])

/**
 * Brings in what is missing. Fails if a required server is still missing; answers what else is, a sentence each.
 */
export const setup: Effect.Effect<ReadonlyArray<string>, HarnessError> = Effect.gen(function*() {
  for (const bringIn of [pull, install]) {
    const entries = yield* missing
    if (entries.length > 0) yield* bringIn(entries)
  }
  const fatal = (yield* missing).filter(([, { required }]) => required)
  if (fatal.length > 0) return yield* new HarnessError({ server: "setup", problem: problems(fatal).join("\n") })
  yield* unpack(yield* missing)
  yield* bundle
  return problems(yield* missing)
}).pipe(
  Effect.catchTag("PlatformError", (cause) => new HarnessError({ server: "setup", problem: cause.message })),
  Effect.provide(NodeServices.layer)
)
