/**
 * Builds the package in the current folder before it is packed. Plain JavaScript, because npm runs it with the Node of
 * the machine, which may know no types.
 */
import { spawnSync } from "node:child_process"
import { existsSync, rmSync } from "node:fs"
import { fileURLToPath } from "node:url"

const fail = (message) => {
  console.error(message)
  process.exit(1)
}

// npm writes the manifest as it stands into the tarball: entries in ./src, and versions that only the workspace knows.
if (!(process.env.npm_config_user_agent ?? "").startsWith("pnpm/")) {
  fail("Pack with pnpm (npx --yes pnpm@12 pack): npm would publish entries in ./src and workspace: versions.")
}

const tsc = fileURLToPath(new URL("../node_modules/.bin/tsc", import.meta.url))
if (!existsSync(tsc)) fail("The compiler is missing: npx --yes pnpm@12 install")

// A module that no longer exists must not be published again.
rmSync("dist", { recursive: true, force: true })
const { error, status } = spawnSync(tsc, ["-b"], { stdio: "inherit" })
if (error !== undefined) throw error
process.exit(status ?? 1)
