/**
 * The figures of the last full run, in files.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"

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

/** Keeps the parts of earlier runs that this one did not measure. */
export const save = (name: string, loadAverage: number, figures: Record<string, unknown>): void => {
  mkdirSync(folder, { recursive: true })
  const file = `${folder}/${name}.json`
  const before: unknown = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {}
  const all = { ...(typeof before === "object" && before), ...machine(), loadAverage, ...figures }
  const rounded = JSON.stringify(all, (_, value) => typeof value === "number" ? Number(value.toPrecision(4)) : value, 2)
  writeFileSync(file, `${rounded}\n`)
}
