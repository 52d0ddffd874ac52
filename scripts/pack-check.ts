/**
 * Packs every package from a checkout without anything built, installs the tarballs into empty projects by npm and by
 * pnpm, and uses them there as a user would. `--out FOLDER` keeps the tarballs.
 */
import { cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { parseArgs } from "node:util"
import { importAll, npmApp, pnpmApp, typeCheck } from "./pack/app.ts"
import { lint } from "./pack/lint.ts"
import { packAll } from "./pack/tarballs.ts"

const { values: { out } } = parseArgs({ options: { out: { type: "string" } } })

const started = performance.now()
const step = (text: string) => console.log(`\n-- ${text} (${((performance.now() - started) / 1000).toFixed(0)} s)`)

const folder = mkdtempSync(join(tmpdir(), "dlock-pack-"))
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))

step("pack from a clean checkout")
const tarballs = packAll(folder)
step("publint and attw")
for (const tarball of tarballs) lint(tarball)
for (const [name, create] of [["npm", npmApp], ["pnpm", pnpmApp]] as const) {
  step(`install with ${name}`)
  const app = create(join(folder, name), tarballs)
  step(`import every entry (${name})`)
  importAll(app)
  step(`types (${name})`)
  typeCheck(app)
}
if (out !== undefined) {
  mkdirSync(out, { recursive: true })
  for (const { file } of tarballs) cpSync(file, join(out, basename(file)))
}
step("packages are fit to publish")
