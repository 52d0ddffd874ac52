/**
 * Keys that nobody else wants: what a lock costs beside the bare driver's round trips.
 */
import type { Contender, Entry, Site } from "./Contender.ts"
import type { Counter } from "./Counts.ts"
import { total } from "./Counts.ts"
import { median, quantile, shuffled } from "./stats.ts"

export interface Uncontended {
  readonly name: string
  readonly medianMicros: number
  readonly p99Micros: number
  /** The median over blocks of this block's median to that of the floor, next to it in time. */
  readonly medianRatio: number | undefined
  readonly pairsPerSecond: number
  readonly throughputRatio: number | undefined
  /** Commands of the server per acquire and release, those inside of scripts too. */
  readonly commands: number
}

export interface Effort {
  /** Blocks of 50, one after the other. */
  readonly blocks: number
  /** Blocks of 64 at a time. */
  readonly loads: number
}

const blockSize = 50
const concurrency = 64
const timesEach = 16

interface Samples {
  readonly all: Array<number>
  readonly medians: Array<number>
  readonly rates: Array<number>
  commands: number
}

const keysOf = (prefix: string, amount: number): Array<string> =>
  Array.from({ length: amount }, (_, i) => `${prefix}${i}`)

const ratios = (values: ReadonlyArray<number>, floor: ReadonlyArray<number> | undefined): number | undefined =>
  floor === undefined ? undefined : median(values.map((value, i) => value / (floor[i] ?? Number.NaN)))

export const measure = async (
  entries: ReadonlyArray<Entry>,
  site: Site,
  counter: Counter,
  effort: Effort
): Promise<ReadonlyArray<Uncontended>> => {
  const runners: Array<{ readonly entry: Entry, readonly contender: Contender, readonly samples: Samples }> = []
  for (const entry of entries) {
    const contender = await entry.make(site)
    const samples: Samples = { all: [], medians: [], rates: [], commands: 0 }
    const keys = keysOf(`${entry.name}-`, blockSize)
    // The first hundreds are compiled code in the making.
    for (let i = 0; i < 10; i++) await contender.sequence(keys)
    await counter.take()
    await contender.sequence(keys)
    samples.commands = total(await counter.take()) / blockSize
    runners.push({ entry, contender, samples })
  }
  for (let block = 0; block < effort.blocks; block++) {
    for (const { contender, entry, samples } of shuffled(runners)) {
      const times = await contender.sequence(keysOf(`${entry.name}-`, blockSize))
      samples.all.push(...times)
      samples.medians.push(median(times))
    }
  }
  for (let load = -2; load < effort.loads; load++) {
    for (const { contender, entry, samples } of shuffled(runners)) {
      const started = performance.now()
      await contender.together(keysOf(`${entry.name}-t`, concurrency), timesEach)
      if (load >= 0) samples.rates.push(concurrency * timesEach / (performance.now() - started) * 1000)
    }
  }
  const floor = runners.find(({ entry }) => entry.kind === "floor")?.samples
  for (const { contender } of runners) await contender.close()
  return runners.map(({ entry, samples }) => ({
    name: entry.name,
    medianMicros: median(samples.all) * 1000,
    p99Micros: quantile(samples.all, 0.99) * 1000,
    medianRatio: ratios(samples.medians, floor?.medians),
    pairsPerSecond: median(samples.rates),
    throughputRatio: ratios(samples.rates, floor?.rates),
    commands: samples.commands
  }))
}
