/**
 * Packs each package as it would be published, installs the tarballs into an empty folder, and imports every public
 * entry there with plain Node.
 */
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { root, run } from "./run.ts"

interface Manifest {
  readonly name: string
  readonly version: string
  readonly publishConfig: { readonly exports: Record<string, string | null> }
}

const manifests = globSync("packages/*/package.json", { cwd: root }).map((file): Manifest =>
  JSON.parse(readFileSync(join(root, file), "utf8"))
)

/** The entries of a package as a user imports them; a `*` stands for every module of the folder. */
const entries = (manifest: Manifest): ReadonlyArray<string> => {
  const folder = join(root, "packages", manifest.name.replace("@dlock/", ""))
  return Object.entries(manifest.publishConfig.exports).flatMap(([entry, target]) => {
    if (target === null || target.endsWith(".json")) return []
    const specifier = join(manifest.name, entry)
    if (!entry.includes("*")) return [specifier]
    return globSync(target, { cwd: folder }).map((file) => {
      const [before = "", after = ""] = join(target).split("*")
      return specifier.replace("*", file.slice(before.length, file.length - after.length))
    }).filter((found) => !found.endsWith("/index"))
  })
}

const folder = mkdtempSync(join(tmpdir(), "dlock-pack-"))
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))
const tarballs = join(folder, "tarballs")
const app = join(folder, "app")
mkdirSync(tarballs)
mkdirSync(app)

run("npx", ["--yes", "pnpm@12", "-r", "--filter", "./packages/*", "pack", "--pack-destination", tarballs])
const dependencies = Object.fromEntries(manifests.map(({ name, version }) => [
  name,
  `file:${join(tarballs, `${name.replace("@", "").replace("/", "-")}-${version}.tgz`)}`
]))
// A user who runs the conformance suite has these two.
Object.assign(dependencies, { "@effect/vitest": "^4.0.5", vitest: "^5.1.1", effect: "^4.1.0" })
writeFileSync(join(app, "package.json"), JSON.stringify({ name: "app", private: true, type: "module", dependencies }))
run("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error"], app)

const specifiers = manifests.flatMap(entries)
writeFileSync(
  join(app, "main.js"),
  `for (const entry of ${JSON.stringify(specifiers)}) {
  const names = Object.keys(await import(entry))
  if (names.length === 0 && !/\\/Lease$/.test(entry)) throw new Error(entry + " exports nothing")
  console.log(entry + ": " + names.length + " exports")
}
const inner = await import("@dlock/core/internal/engine").then(() => true, () => false)
if (inner) throw new Error("internal modules are reachable")
process.exit(0)
`
)
run("node", ["main.js"], app)

// The declarations, as a user's compiler reads them.
writeFileSync(
  join(app, "types.ts"),
  specifiers.map((entry, i) => `import * as m${i} from "${entry}"\n`).join("") +
    `export type All = [${specifiers.map((_, i) => `typeof m${i}`).join(", ")}]\n`
)
run("tsc", ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "types.ts"], app)
