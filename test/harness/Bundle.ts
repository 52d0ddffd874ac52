/**
 * The programs that tests start as processes, each bundled: it loads a few files instead of the six hundred of Effect and
 * the packages, in a quarter of the processor time.
 */
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { rolldown } from "rolldown"
import { HarnessError } from "./HarnessError.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

const sources = {
  dlock: "packages/cli/src/main.ts",
  // `dlock` finds it beside itself.
  watcher: "packages/cli/src/internal/watcher.ts",
  configured: "examples/src/configured.ts",
  orders: "examples/src/orders.ts",
  nightly: "examples/src/nightly.ts",
  migration: "examples/src/migration.ts",
  leader: "examples/src/recipes/leader.ts",
  worker: "test/faults/worker.ts",
  leaker: "test/faults/leaker.ts",
  leads: "test/beyond/leads.ts",
  cron: "test/beyond/cron.ts",
  permit: "test/beyond/permit.ts",
  holder: "test/postgres/holder.ts",
  writer: "test/postgres/writer.ts"
}

/** A program that is bundled. */
export type Bundled = keyof typeof sources

// Below `test`, so that what is left out of the bundles is found in its `node_modules`; git ignores it.
const folder = Path.join(root, "test/.programs")

/** The bundle of a program. */
export const bundled = (name: Bundled): string => Path.join(folder, "dist", `${name}.js`)

/** Another run may read the file at this moment. */
const writeWhole = (file: string, text: string): void => {
  const own = `${file}.${process.pid}`
  Fs.writeFileSync(own, text)
  Fs.renameSync(own, file)
}

/** Bundles all programs. It is done once per run, before the tests. */
export const bundle: Effect.Effect<void, HarnessError> = Effect.tryPromise({
  try: async () => {
    const input = Object.fromEntries(Object.entries(sources).map(([name, path]) => [name, Path.join(root, path)]))
    // etcd3 reads files that lie beside its own.
    const build = await rolldown({ input, platform: "node", external: ["etcd3"], logLevel: "silent" })
    const { output } = await build.generate({ format: "esm" })
    const dist = Path.join(folder, "dist")
    Fs.mkdirSync(dist, { recursive: true })
    for (const part of output) {
      if (part.type === "chunk") writeWhole(Path.join(dist, part.fileName), part.code)
    }
    const names = new Set(output.map(({ fileName }) => fileName))
    for (const old of Fs.readdirSync(dist)) {
      if (old.endsWith(".js") && !names.has(old)) Fs.rmSync(Path.join(dist, old), { force: true })
    }
    // `dlock` reads its version from it.
    writeWhole(Path.join(folder, "package.json"), Fs.readFileSync(Path.join(root, "packages/cli/package.json"), "utf8"))
    await build.close()
  },
  catch: (cause) => new HarnessError({ server: "bundle", problem: String(cause) })
})
