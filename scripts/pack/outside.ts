/**
 * The machine as a user has it, without what pnpm adds to the path and the environment of a script.
 */
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { delimiter, join } from "node:path"

const path = (process.env.PATH ?? "").split(delimiter).filter((folder) => !folder.includes("node_modules"))

const kept = Object.entries(process.env).filter(([name]) => !/^(npm_|pnpm_|node_path$|init_cwd$)/i.test(name))

export const environment: NodeJS.ProcessEnv = { ...Object.fromEntries(kept), PATH: path.join(delimiter) }

export interface Node {
  readonly command: string
  readonly version: string
}

const nodeAt = (command: string): Node => ({
  command,
  version: spawnSync(command, ["--version"], { encoding: "utf8" }).stdout.trim().replace("v", "")
})

const own = path.map((folder) => join(folder, "node")).find((file) => existsSync(file))

/** The Node of the repository, and the machine's own where it is another one. */
export const nodes: ReadonlyArray<Node> = [process.execPath, ...own === undefined ? [] : [own]]
  .map(nodeAt)
  .filter(({ version }, index, all) => all.findIndex((other) => other.version === version) === index)

/** Whether a version is in a range of the form `>=20.19.0`, the only one that the manifests of this workspace use. */
export const satisfies = (version: string, range: string | undefined): boolean =>
  range === undefined || version.localeCompare(range.replace(">=", ""), "en", { numeric: true }) >= 0
