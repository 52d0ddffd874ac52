/**
 * The tables of the README, made from the figures that are kept.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { type Backend, backends } from "./contenders/index.ts"
import { type AllFigures, goals } from "./goals.ts"
import * as overhead from "./overhead.ts"
import type { Figures } from "./panels.ts"
import * as report from "./report.ts"
import { load, loadCore } from "./results.ts"

const file = fileURLToPath(new URL("../README.md", import.meta.url))

const titles: Record<Backend, string> = {
  redis: "Redis",
  redlock: "Redlock, five servers",
  etcd: "etcd",
  mysql: "MySQL (MariaDB)",
  postgres: "PostgreSQL",
  zookeeper: "ZooKeeper"
}

const shown = <A>(rows: A | undefined, show: (rows: A) => string) => rows === undefined ? [] : [show(rows)]

const tables = (figures: Figures): ReadonlyArray<string> => {
  const { beyond, growth, handOver, holding, hotKey, linger, network, postgresCost, profile, uncontended } = figures
  return [
    ...shown(uncontended, report.uncontended),
    ...shown(network, report.network),
    ...shown(postgresCost, report.postgresCost),
    ...shown(handOver, report.handOver),
    ...shown(hotKey, report.hotKey),
    ...shown(linger, report.linger),
    ...shown(beyond, report.beyond),
    ...shown(holding, report.holding),
    ...shown(growth, report.growth),
    ...shown(profile, report.profile)
  ]
}

/** Puts text between `<!-- name:start -->` and `<!-- name:end -->`. */
const filled = (content: string, name: string, text: string): string => {
  const [start, end] = [`<!-- ${name}:start -->`, `<!-- ${name}:end -->`]
  const [from, to] = [content.indexOf(start), content.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`bench/README.md has no place for "${name}"`)
  return `${content.slice(0, from + start.length)}\n\n${text}\n\n${content.slice(to)}`
}

/** Of every backend, what is kept. */
export const kept = (): AllFigures => ({
  redis: load("redis"),
  redlock: load("redlock"),
  etcd: load("etcd"),
  mysql: load("mysql"),
  postgres: load("postgres"),
  zookeeper: load("zookeeper")
})

/** Writes the goals and all tables. */
export const write = (): void => {
  const all = kept()
  const core = loadCore()
  const figures = [
    ...(core.times === undefined ? [] : [`### Core, over memory\n\n${overhead.report(core)}`]),
    ...backends.map((backend) => [`### ${titles[backend]}`, ...tables(all[backend])].join("\n\n"))
  ].join("\n\n")
  const content = filled(readFileSync(file, "utf8"), "goals", report.goals(goals(all)))
  writeFileSync(file, filled(content, "figures", figures))
}
