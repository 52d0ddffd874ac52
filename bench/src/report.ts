/**
 * The tables of a run.
 */
import type { Growth } from "./growth.ts"
import type { HandOver } from "./handOver.ts"
import type { Holding } from "./holding.ts"
import { busy, parts, type Profile } from "./profile.ts"
import { table } from "./table.ts"
import type { Uncontended } from "./uncontended.ts"

export const uncontended = (rows: ReadonlyArray<Uncontended>): string =>
  table(
    ["uncontended", "median µs", "p99 µs", "to the floor", "pairs/s at 64", "to the floor", "commands"],
    rows.map((row) => [
      row.name,
      row.medianMicros,
      row.p99Micros,
      row.medianRatio,
      row.pairsPerSecond,
      row.throughputRatio,
      row.commands
    ])
  )

export const handOver = (rows: ReadonlyArray<HandOver>): string =>
  table(
    ["hand-over", "waiters", "per second", "gap ms", "gap p99 ms", "commands", "fairness", "errors", "overlaps"],
    rows.map((row) => [
      row.name,
      `${row.processes} x ${row.waiters}`,
      row.perSecond,
      row.gapMedianMillis,
      row.gapP99Millis,
      row.commands,
      row.fairness,
      row.errors,
      row.overlaps
    ])
  )

export const holding = (rows: ReadonlyArray<Holding>): string =>
  table(
    [
      "holding",
      "locks",
      "taken/s",
      "commands/s",
      "writes/s",
      "CPU %",
      "heap B/lock",
      "RSS B/lock",
      "lag p99 ms",
      "lag max ms",
      "lost"
    ],
    rows.map((row) => [
      row.name,
      row.count,
      row.takenPerSecond,
      row.commandsPerSecond,
      row.writesPerSecond,
      row.cpuPercent,
      row.heapPerLock,
      row.residentPerLock,
      row.lagP99Millis,
      row.lagMaxMillis,
      row.lost
    ])
  )

export const growth = (rows: ReadonlyArray<Growth>): string =>
  table(
    ["growth", "amount", "µs", "to the floor", "commands"],
    rows.map((row) => [row.what, row.amount, row.micros, row.ratio, row.commands])
  )

export const profile = (rows: ReadonlyArray<Profile>): string =>
  table(
    ["µs per pair", "at a time", "busy", ...parts],
    rows.map((row) => [row.name, row.concurrency, busy(row), ...parts.map((part) => row.micros[part])])
  )
