/**
 * Runs a command of the workspace, shows what it prints, and ends with its exit code when it fails.
 */
import { spawnSync } from "node:child_process"
import { dirname } from "node:path"
import { fileURLToPath } from "node:url"

export const root: string = dirname(dirname(fileURLToPath(import.meta.url)))

/** Ends the program with a sentence instead of a stack. */
export const fail = (message: string): never => {
  console.error(message)
  process.exit(1)
}

export interface RunOptions {
  readonly cwd?: string
  readonly env?: NodeJS.ProcessEnv
  /** Prints the command and what it says only when it fails. */
  readonly quiet?: boolean
}

export const run = (
  command: string,
  args: ReadonlyArray<string>,
  { cwd = root, env = process.env, quiet = false }: RunOptions = {}
): void => {
  const line = `$ ${command} ${args.join(" ")}`
  if (!quiet) console.log(line)
  const { error, status, stderr, stdout } = spawnSync(command, args, {
    cwd,
    env,
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    stdio: quiet ? "pipe" : "inherit"
  })
  if (error !== undefined) throw error
  if (status === 0) return
  if (quiet) console.error(`${line}\n${stdout}${stderr}`)
  process.exit(status ?? 1)
}

export const pnpm = (args: ReadonlyArray<string>, options?: RunOptions): void =>
  run("npx", ["--yes", "pnpm@12", ...args], options)
