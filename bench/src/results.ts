/**
 * The figures of the last full run, in files.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { svg } from "./chart.ts"
import type { Backend } from "./contenders/index.ts"
import type { Core } from "./overhead.ts"
import { type Figures, panels } from "./panels.ts"

const folder = fileURLToPath(new URL("../results", import.meta.url))

const peers = [
  "effect",
  "ioredis",
  "etcd3",
  "mysql2",
  "node-zookeeper-client",
  "redlock",
  "@sesamecare-oss/redlock",
  "redlock-universal",
  "redis-semaphore",
  "@verrou/core",
  "@effect/sql-pg",
  "live-mutex"
]

const require = createRequire(import.meta.url)

/** The version of an installed package, whether or not it exports its `package.json`. */
const versionOf = (name: string): string | undefined => {
  for (const place of require.resolve.paths(name) ?? []) {
    const file = `${place}/${name}/package.json`
    if (existsSync(file)) return JSON.parse(readFileSync(file, "utf8")).version
  }
  return undefined
}

const machine = () => ({
  node: process.version,
  cores: availableParallelism(),
  versions: Object.fromEntries(peers.map((name) => [name, versionOf(name)]))
})

const read = (file: string): object => {
  const before: unknown = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : undefined
  return typeof before === "object" && before !== null ? before : {}
}

const round = (_: string, value: unknown) => typeof value === "number" ? Number(value.toPrecision(4)) : value

const write = (name: string, content: object): void => {
  writeFileSync(`${folder}/${name}.json`, `${JSON.stringify(content, round, 2)}\n`)
}

/** The figures that are kept of a backend. */
export const load = (backend: Backend): Figures => read(`${folder}/${backend}.json`)

/** Writes the figures and their chart; the parts that this run did not measure stay as they were. */
export const save = (backend: Backend, loadAverage: number, figures: Figures): void => {
  mkdirSync(folder, { recursive: true })
  const all: Figures = { ...load(backend), ...figures }
  write(backend, { ...all, ...machine(), loadAverage })
  writeFileSync(`${folder}/${backend}.svg`, svg(panels(backend, all)))
}

export const loadCore = (): Partial<Core> => read(`${folder}/core.json`)

export const saveCore = (loadAverage: number, core: Core): void => {
  mkdirSync(folder, { recursive: true })
  write("core", { ...machine(), loadAverage, ...core })
}
