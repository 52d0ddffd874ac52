/**
 * What of a backend's figures is drawn.
 */
import type { Beyond } from "./beyond.ts"
import type { Bar, Panel } from "./chart.ts"
import type { Growth } from "./growth.ts"
import type { HandOver } from "./handOver.ts"
import type { Holding } from "./holding.ts"
import type { HotKey } from "./hotKey.ts"
import type { LingerRun } from "./linger.ts"
import type { Network } from "./network.ts"
import type { PostgresCost } from "./postgresCost.ts"
import type { Profile } from "./profile.ts"
import type { Uncontended } from "./uncontended.ts"

/** The figures of one backend, those that were measured. */
export interface Figures {
  readonly uncontended?: ReadonlyArray<Uncontended> | undefined
  readonly handOver?: ReadonlyArray<HandOver> | undefined
  readonly hotKey?: ReadonlyArray<HotKey> | undefined
  readonly network?: Network | undefined
  readonly linger?: LingerRun | undefined
  readonly beyond?: Beyond | undefined
  readonly postgresCost?: ReadonlyArray<PostgresCost> | undefined
  readonly holding?: ReadonlyArray<Holding> | undefined
  readonly growth?: ReadonlyArray<Growth> | undefined
  readonly profile?: ReadonlyArray<Profile> | undefined
}

const bars = <A extends { readonly name: string }>(rows: ReadonlyArray<A>, value: (row: A) => number): Array<Bar> =>
  rows.map((row) => ({ label: row.name, value: value(row), isOurs: row.name.startsWith("dlock") }))
    .filter(({ value }) => Number.isFinite(value))

const names = { keys: "keys held", waiters: "waiting for one key", lines: "keys, four waiting for each" } as const

const growth = (rows: ReadonlyArray<Growth>): Array<Panel> =>
  (["keys", "waiters", "lines"] as const).flatMap((what) => {
    const some = rows.filter((row) => row.what === what)
    const operation = what === "keys" ? "pair" : "hand-over"
    return some.length === 0 ? [] : [{
      title: `Growth: commands of the server per ${operation}`,
      bars: some.map(({ amount, commands }) => ({ label: `${amount} ${names[what]}`, value: commands, isOurs: true }))
    }]
  })

const beyond = (backend: string, figures: Figures): Array<Panel> =>
  [5, 50].map((limit) => ({
    title: `${backend}, 64 waiting for ${limit} permits: sections of 1 ms per second (more is better)`,
    bars: bars((figures.beyond?.permits ?? []).filter((row) => row.limit === limit), (row) => row.perSecond)
  }))

/** The titles say which way is better. */
export const panels = (backend: string, figures: Figures): ReadonlyArray<Panel> => {
  const { handOver = [], holding = [], hotKey = [], uncontended = [] } = figures
  const shapes = [...new Set(handOver.map(({ processes, waiters }) => `${processes} x ${waiters}`))]
  const nothing = hotKey.filter(({ layers, workMillis }) => layers === 1 && workMillis === 0)
  const all: ReadonlyArray<Panel> = [
    {
      title: `${backend}, uncontended: median µs (less is better)`,
      bars: bars(uncontended, (row) => row.medianMicros)
    },
    {
      title: `${backend}, uncontended, 64 at a time: pairs per second (more is better)`,
      bars: bars(uncontended, (row) => row.pairsPerSecond)
    },
    {
      title: `${backend}, uncontended: processor time per pair, µs (less is better)`,
      bars: bars(uncontended, (row) => row.userMicros + row.systemMicros)
    },
    {
      title: `${backend}, 0.5 ms of network each way: median µs (less is better)`,
      bars: bars(figures.network?.pairs ?? [], (row) => row.medianMicros)
    },
    ...shapes.map((shape) => ({
      title: shape === "1 x 1"
        ? `${backend}, alone: sections of 1 ms per second, the bound of hand-overs`
        : `${backend}, ${shape} waiting: hand-overs per second (more is better)`,
      bars: bars(handOver.filter((row) => `${row.processes} x ${row.waiters}` === shape), (row) => row.perSecond)
    })),
    {
      title: `${backend}, one hot key, 16 fibers: sections of nothing per second (more is better)`,
      bars: bars(nothing, (row) => row.perSecond)
    },
    ...beyond(backend, figures),
    {
      title: `${backend}, holding: writes per second (less is better)`,
      bars: bars(holding, (row) => row.writesPerSecond)
    },
    {
      title: `${backend}, holding: processor time, % of a core (less is better)`,
      bars: bars(holding, (row) => row.cpuPercent)
    },
    ...growth(figures.growth ?? [])
  ]
  return all.filter((panel) => panel.bars.length > 0)
}
