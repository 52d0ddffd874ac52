import { defineConfig } from "vitest/config"

const unit = (name: string) => ({
  test: { name: `unit:${name}`, root: `packages/${name}`, include: ["test/**/*.test.ts"] }
})

export default defineConfig({
  test: {
    projects: [
      unit("core"),
      unit("redis"),
      unit("etcd"),
      unit("mysql"),
      unit("zookeeper"),
      {
        test: {
          name: "servers",
          root: "test",
          include: ["**/*.test.ts"],
          // Minutes of faults on every backend: `pnpm test:faults`, or this file by itself.
          exclude: process.env["DLOCK_FAULTS_SEED"] === undefined ? ["faults/faults.test.ts", "node_modules/**"] : [],
          globalSetup: "./harness/globalSetup.ts",
          testTimeout: 60_000,
          hookTimeout: 120_000
        }
      }
    ]
  }
})
