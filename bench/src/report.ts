/**
 * The tables of a run.
 */
import type { Beyond } from "./beyond.ts"
import type { Goal } from "./goals.ts"
import type { Growth } from "./growth.ts"
import type { HandOver } from "./handOver.ts"
import type { Holding } from "./holding.ts"
import type { HotKey } from "./hotKey.ts"
import type { LingerRun } from "./linger.ts"
import type { Network } from "./network.ts"
import type { PostgresCost } from "./postgresCost.ts"
import { busy, parts, type Profile } from "./profile.ts"
import { table } from "./table.ts"
import type { Uncontended } from "./uncontended.ts"

export const uncontended = (rows: ReadonlyArray<Uncontended>): string =>
  table(
    [
      "uncontended",
      "median µs",
      "p99 µs",
      "to the floor",
      "pairs/s at 64",
      "to the floor",
      "commands",
      "CPU µs, user",
      "system",
      "to the floor"
    ],
    rows.map((row) => [
      row.name,
      row.medianMicros,
      row.p99Micros,
      row.medianRatio,
      row.pairsPerSecond,
      row.throughputRatio,
      row.commands,
      row.userMicros,
      row.systemMicros,
      row.cpuRatio
    ])
  )

export const network = ({ addedMillis, pairs }: Network): string =>
  table(
    [
      "0.5 ms of network each way",
      "median µs",
      "p99 µs",
      "to the floor",
      "pairs/s at 64",
      "to the floor",
      "round trips"
    ],
    [
      ...pairs.map((row) => [
        row.name,
        row.medianMicros,
        row.p99Micros,
        row.medianRatio,
        row.pairsPerSecond,
        row.throughputRatio,
        row.commands
      ]),
      ...(addedMillis === undefined ? [] : [["what the proxy adds to a round trip", addedMillis * 1000]])
    ].map((row) => [...row, ...Array.from({ length: 7 - row.length }, () => undefined)])
  )

export const linger = ({ rows, tripMillis }: LingerRun): string =>
  table(
    ["one fiber, one key", "sections/s", "a pair of another process ms", "100 ms later", "while it works"],
    [
      ...rows.map((row) => [row.name, row.sectionsPerSecond, row.idleMillis, row.laterMillis, row.busyMillis]),
      ...(tripMillis === undefined
        ? []
        : [["a round trip of the bare driver", undefined, tripMillis, undefined, undefined]])
    ]
  )

export const beyond = ({ free, permits }: Beyond): string =>
  [
    table(["free", "µs", "to one key"], free.map((row) => [row.name, row.micros, row.ratio])),
    table(
      ["64 wait, 1 ms of work", "permits", "sections/s", "overlaps"],
      permits.map((row) => [row.name, row.limit, row.perSecond, row.overlaps])
    )
  ].join("\n\n")

export const postgresCost = (rows: ReadonlyArray<PostgresCost>): string =>
  table(
    ["per pair on Postgres", "log bytes", "dead rows", "HOT updates"],
    rows.map((row) => [row.name, row.walBytes, row.deadRows, row.hotShare])
  )

const verdicts = new Map([[true, "yes"], [false, "**no**"], [undefined, "-"]])

export const goals = (rows: ReadonlyArray<Goal>): string =>
  table(
    ["what", "goal", "figure", "reached", "in the same run"],
    rows.map((row) => [row.what, row.goal, row.figure, verdicts.get(row.isReached), row.beside])
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

export const hotKey = (rows: ReadonlyArray<HotKey>): string =>
  table(
    ["hot key", "layers", "work ms", "sections/s", "fairness", "commands"],
    rows.map((
      row
    ) => [row.name, `${row.layers} x ${row.fibers}`, row.workMillis, row.perSecond, row.fairness, row.commands])
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
