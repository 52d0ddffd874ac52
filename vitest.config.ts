import { existsSync } from "node:fs"
import { basename, relative } from "node:path"
import { configDefaults, defineConfig, type TestProjectInlineConfiguration } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"
import { publishedPackages } from "./scripts/workspace.ts"

/** Most of a run is waiting, and on two cores Vitest's default is one worker. */
const maxWorkers = 7

const unit = (folder: string) => ({
  test: {
    name: `unit:${basename(folder)}`,
    root: folder,
    include: ["test/**/*.test.ts"],
    // These leave nothing behind: one process runs many files, and loads Effect once.
    isolate: false,
    testTimeout: 60_000,
    maxWorkers
  }
})

const unitFolders = ["scripts", ...publishedPackages().map(({ folder }) => folder)].filter((folder) =>
  existsSync(new URL(`${folder}/test`, import.meta.url))
)

const shortRun = "faults/faults.test.ts"

const servers = (name: string, test: TestProjectInlineConfiguration["test"]) => ({
  test: {
    name,
    root: "test",
    globalSetup: "./harness/globalSetup.ts",
    // To load Effect and the drivers anew for each file takes a minute of processor time in all.
    isolate: false,
    // The programs that tests start load the same files hundreds of times.
    env: { NODE_COMPILE_CACHE: `${import.meta.dirname}/.cache/compiled` },
    testTimeout: 60_000,
    hookTimeout: 120_000,
    maxWorkers,
    ...test
  }
})

/** What takes longest, the longest first. It is started first, so that none of it is left at the end. */
const longest = [
  /^faults\/faults/,
  /^(cli\/exit|etcd\/faults)/,
  /\/(conformance|connection|faults|MysqlLock|suite)\b/
]

const placeOf = ({ moduleId, project }: TestSpecification): number => {
  const file = relative(`${import.meta.dirname}/test`, moduleId)
  const known = longest.findIndex((pattern) => pattern.test(file))
  if (known >= 0) return known
  // What waits goes before what computes.
  return longest.length + (project.name.startsWith("unit:") ? 1 : 0)
}

class LongestFirst extends BaseSequencer {
  override sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    return Promise.resolve(
      files.toSorted((a, b) => placeOf(a) - placeOf(b) || a.project.name.localeCompare(b.project.name))
    )
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: LongestFirst },
    projects: [
      ...unitFolders.map(unit),
      servers("servers", { include: ["**/*.test.ts"], exclude: [...configDefaults.exclude, shortRun] }),
      servers("faults", { include: [shortRun] })
    ]
  }
})
