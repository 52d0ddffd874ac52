/**
 * What people read: a table, and a file.
 */
import { Effect } from "effect"
import * as Fs from "node:fs"
import type { Kind } from "../harness/Catalog.ts"
import { available } from "../harness/Program.ts"
import { cache, type Outcome } from "./Run.ts"
import type { TargetName } from "./targets.ts"

const needs = {
  memory: undefined,
  redis: "redis",
  "redis-cluster": "redis",
  "redis-sentinel": "redis",
  redlock: "redis",
  etcd: "etcd",
  "etcd-cluster": "etcd",
  mariadb: "mariadb",
  mysql: "mysql",
  postgres: "postgres",
  "postgres-fenced": "postgres",
  "postgres-synchronous": "postgres",
  "postgres-asynchronous": "postgres",
  "postgres-pgbouncer": "pgbouncer",
  zookeeper: "zookeeper",
  "zookeeper-ensemble": "zookeeper"
} as const satisfies Record<TargetName, Kind | undefined>

/** Those whose servers are here; setting up has told of the others. */
export const runnable = (names: ReadonlyArray<TargetName>): ReadonlyArray<TargetName> =>
  names.filter((name) => {
    const kind = needs[name]
    return kind === undefined || available(kind)
  })

const columns: ReadonlyArray<readonly [string, (outcome: Outcome) => string]> = [
  ["backend", ({ target }) => target],
  ["faults", ({ figures }) => String(figures.faults)],
  ["grants", ({ figures }) => String(figures.grants)],
  ["passes", ({ figures }) => String(figures.passes)],
  ["terms", ({ figures }) => String(figures.terms)],
  ["permits", ({ figures }) => String(figures.permits)],
  ["holders killed", ({ figures }) => String(figures.deaths)],
  ["losses reported", ({ figures }) => String(figures.losses)],
  ["fenced writes", ({ figures }) => figures.writes === 0 ? "" : `${figures.writes}`],
  ["refused", ({ figures }) => figures.writes === 0 ? "" : `${figures.unwritten}`],
  ["overlaps", ({ figures }) => String(figures.overlaps)],
  ["of frozen", ({ figures }) => String(figures.frozen)],
  ["forgotten", ({ figures }) => String(figures.forgotten)],
  ["unheard", ({ figures }) => String(figures.unheard)],
  ["stuck waits", ({ figures }) => String(figures.stuck)],
  ["longest gap", ({ figures }) => `${(figures.longestGap / 1000).toFixed(1)} s`],
  ["violations", ({ violations }) => String(violations.length)]
]

const markdown = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const [head = [], ...body] = rows
  const widths = head.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)))
  const line = (cells: ReadonlyArray<string>) =>
    `| ${cells.map((cell, i) => i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)).join(" | ")} |`
  const rule = widths.map((width, i) => i === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`)
  return [line(head), line(rule), ...body.map(line)].join("\n")
}

/** What was done and what came of it, as a Markdown table with a row for each backend. */
export const table = (outcomes: ReadonlyArray<Outcome>): string =>
  markdown([columns.map(([title]) => title), ...outcomes.map((outcome) => columns.map(([, cell]) => cell(outcome)))])

const things = ["fibers", "timers", "handles", "sockets", "listeners", "connections"]

/** What a process had before, after so many pairs, and after so many faults; undefined if it was not measured. */
export const leakTable = (outcomes: ReadonlyArray<Outcome>): string | undefined => {
  const rows = outcomes.flatMap(({ leaks, target }) => {
    if (leaks === undefined) return []
    const { afterFaults, afterPairs, before, faults, pairs } = leaks
    const inventories: ReadonlyArray<Record<string, number>> = [before, afterPairs, afterFaults]
    const heap = inventories.map((one) => ((one["heap"] ?? 0) / 1e6).toFixed(1)).join(" / ")
    return [[
      target,
      String(pairs),
      String(faults),
      ...things.map((name) => inventories.map((one) => one[name] ?? 0).join(" / ")),
      heap
    ]]
  })
  return rows.length === 0 ? undefined : markdown([["backend", "pairs", "faults", ...things, "heap, MB"], ...rows])
}

const most = 20

/** What was broken, a line each. */
export const violations = ({ kept, target, violations }: Outcome): ReadonlyArray<string> => [
  ...violations.slice(0, most).map(({ law, text }) => `  ${target} broke "${law}": ${text}`),
  ...(violations.length > most ? [`  ... and ${violations.length - most} more`] : []),
  ...(kept === undefined ? [] : [`  what was written down is in ${kept}`])
]

/** Writes the outcomes to a file, whose path it answers. */
export const save = (outcomes: ReadonlyArray<Outcome>): Effect.Effect<string> =>
  Effect.sync(() => {
    Fs.mkdirSync(cache, { recursive: true })
    const path = `${cache}/${new Date().toISOString().replace(/[:.]/g, "-")}.json`
    Fs.writeFileSync(path, `${JSON.stringify({ node: process.version, outcomes }, undefined, 2)}\n`)
    return path
  })
