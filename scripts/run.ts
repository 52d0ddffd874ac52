/**
 * Runs a command of the workspace, shows what it prints, and ends with its exit code when it fails.
 */
import { spawnSync } from "node:child_process"
import { dirname } from "node:path"
import { fileURLToPath } from "node:url"

export const root: string = dirname(dirname(fileURLToPath(import.meta.url)))

export const run = (command: string, args: ReadonlyArray<string>, cwd: string = root): void => {
  console.log(`$ ${command} ${args.join(" ")}`)
  const { error, status } = spawnSync(command, args, { cwd, stdio: "inherit" })
  if (error !== undefined) throw error
  if (status !== 0) process.exit(status ?? 1)
}
