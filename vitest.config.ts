import { relative } from "node:path"
import { configDefaults, defineConfig, type TestProjectInlineConfiguration } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** Most of a run is waiting, and on two cores Vitest's default is one worker. */
const maxWorkers = 7

const common: TestProjectInlineConfiguration["test"] = {
  // These leave nothing behind: one process runs many files, and loads Effect once.
  isolate: false,
  testTimeout: 60_000,
  maxWorkers,
  // Node runs TypeScript by itself, and its own imports are faster than those that Vite's runner replaces them with.
  experimental: { viteModuleRunner: false, nodeLoader: false }
}

const shortRun = "faults/faults.test.ts"

const servers = (name: string, test: TestProjectInlineConfiguration["test"]) => ({
  test: {
    ...common,
    name,
    root: "test",
    globalSetup: "./harness/globalSetup.ts",
    // The programs that tests start load the same files hundreds of times.
    env: { NODE_COMPILE_CACHE: `${import.meta.dirname}/.cache/compiled` },
    hookTimeout: 120_000,
    ...test
  }
})

/** What takes longest, the longest first. It is started first, so that none of it is left at the end. */
const longest = [
  /^faults\/faults/,
  /^(cli\/|etcd\/faults)/,
  /\/(conformance|connection|faults|MysqlLock|settings|suite)\b/
]

const placeOf = ({ moduleId, project }: TestSpecification): number => {
  const file = relative(`${import.meta.dirname}/test`, moduleId)
  const known = longest.findIndex((pattern) => pattern.test(file))
  if (known >= 0) return known
  // What waits goes before what computes.
  return longest.length + (project.name === "unit" ? 1 : 0)
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
      { test: { ...common, name: "unit", include: ["{packages/*,scripts}/test/**/*.test.ts"] } },
      servers("servers", { include: ["**/*.test.ts"], exclude: [...configDefaults.exclude, shortRun] }),
      servers("faults", { include: [shortRun] })
    ]
  }
})
