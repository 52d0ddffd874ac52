import { configDefaults, defineConfig, type TestProjectInlineConfiguration } from "vitest/config"

const unit = (name: string) => ({
  test: { name: `unit:${name}`, root: `packages/${name}`, include: ["test/**/*.test.ts"] }
})

const shortRun = "faults/faults.test.ts"

const servers = (name: string, test: TestProjectInlineConfiguration["test"]) => ({
  test: {
    name,
    root: "test",
    globalSetup: "./harness/globalSetup.ts",
    testTimeout: 60_000,
    hookTimeout: 120_000,
    ...test
  }
})

export default defineConfig({
  test: {
    projects: [
      unit("core"),
      unit("redis"),
      unit("etcd"),
      unit("mysql"),
      unit("zookeeper"),
      servers("servers", { include: ["**/*.test.ts"], exclude: [...configDefaults.exclude, shortRun] }),
      // Most of it is waiting for time limits, which a machine that is busy with other tests would miss.
      servers("faults", { include: [shortRun], sequence: { groupOrder: 1 } })
    ]
  }
})
