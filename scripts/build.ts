/**
 * Builds every package of the workspace.
 */
import { run } from "./run.ts"
import { projects } from "./workspace.ts"

run("tsc", ["-b", ...projects()])
