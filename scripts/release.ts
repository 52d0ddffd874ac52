/**
 * Makes a release out of the changesets, up to the publishing itself: versions, changelogs, checked tarballs in
 * `release/`, a commit and its tag. CONTRIBUTING.md has the whole order.
 */
import { spawnSync } from "node:child_process"
import { globSync, rmSync } from "node:fs"
import { fail, pnpm, root, run } from "./run.ts"
import { publishedPackages } from "./workspace.ts"

const git = (...args: ReadonlyArray<string>) => spawnSync("git", args, { cwd: root, encoding: "utf8" }).stdout.trim()

if (git("status", "--porcelain") !== "") fail("The work tree has changes: commit them first.")
if (globSync(".changeset/*.md", { cwd: root }).length === 0) fail("No changeset: there is nothing to release.")

console.log("If a step fails, nothing is committed: git restore . && git clean -fd packages")
run("changeset", ["version"])
run("dprint", ["fmt", "packages/*/package.json"])
run("node", ["scripts/check.ts"])
pnpm(["lint"])
pnpm(["test:unit"])
rmSync("release", { recursive: true, force: true })
run("node", ["scripts/pack-check.ts", "--out", "release"])

const packages = publishedPackages()
const [version = ""] = packages.map(({ manifest }) => manifest.version)
run("git", ["add", "--all"])
run("git", ["commit", "--message", `Release ${version}`])
run("git", ["tag", "--annotate", `v${version}`, "--message", `dlock ${version}`])

// Core first: the others depend on it.
const tarballs = globSync("release/*.tgz", { cwd: root }).toSorted((a, b) =>
  Number(b.includes("dlock-core-")) - Number(a.includes("dlock-core-")) || a.localeCompare(b)
)
console.log(`\nRelease ${version} is made. To publish it:\n`)
for (const tarball of tarballs) console.log(`  npm publish ./${tarball} --access public`)
console.log(`  git push --follow-tags`)
