/**
 * What of a backend's figures is drawn.
 */
import type { Bar, Panel } from "./chart.ts"
import type { Growth } from "./growth.ts"
import type { HandOver } from "./handOver.ts"
import type { Holding } from "./holding.ts"
import type { Profile } from "./profile.ts"
import type { Uncontended } from "./uncontended.ts"

/** The figures of one backend, those that were measured. */
export interface Figures {
  readonly uncontended?: ReadonlyArray<Uncontended> | undefined
  readonly handOver?: ReadonlyArray<HandOver> | undefined
  readonly holding?: ReadonlyArray<Holding> | undefined
  readonly growth?: ReadonlyArray<Growth> | undefined
  readonly profile?: ReadonlyArray<Profile> | undefined
}

const bars = <A extends { readonly name: string }>(rows: ReadonlyArray<A>, value: (row: A) => number): Array<Bar> =>
  rows.map((row) => ({ label: row.name, value: value(row), isOurs: row.name.startsWith("dlock") }))

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

/** The titles say which way is better. */
export const panels = (backend: string, figures: Figures): ReadonlyArray<Panel> => {
  const { handOver = [], holding = [], uncontended = [] } = figures
  const shapes = [...new Set(handOver.map(({ processes, waiters }) => `${processes} x ${waiters}`))]
  const all: ReadonlyArray<Panel> = [
    {
      title: `${backend}, uncontended: median µs (less is better)`,
      bars: bars(uncontended, (row) => row.medianMicros)
    },
    {
      title: `${backend}, uncontended, 64 at a time: pairs per second (more is better)`,
      bars: bars(uncontended, (row) => row.pairsPerSecond)
    },
    ...shapes.map((shape) => ({
      title: `${backend}, ${shape} waiting: hand-overs per second (more is better)`,
      bars: bars(handOver.filter((row) => `${row.processes} x ${row.waiters}` === shape), (row) => row.perSecond)
    })),
    {
      title: `${backend}, holding: writes per second (less is better)`,
      bars: bars(holding, (row) => row.writesPerSecond)
    },
    ...growth(figures.growth ?? [])
  ]
  return all.filter((panel) => panel.bars.length > 0)
}
