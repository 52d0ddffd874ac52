/**
 * Keys that no other wants: what a lock costs beside the bare driver's round trips.
 */
import type { Contender, Entry, Site } from "./Contender.ts"
import type { Counter } from "./Counts.ts"
import { total } from "./Counts.ts"
import { median, quantile, shuffled, sum } from "./stats.ts"

export interface Uncontended {
  readonly name: string
  readonly medianMicros: number
  readonly p99Micros: number
  /** The median over blocks of this block's median to that of the floor, next to it in time. */
  readonly medianRatio: number | undefined
  readonly pairsPerSecond: number
  readonly throughputRatio: number | undefined
  /** Processor time of this process for each, one at a time, in microseconds. */
  readonly userMicros: number
  readonly systemMicros: number
  /** The median over blocks of both together to those of the floor. */
  readonly cpuRatio: number | undefined
  /** Commands of the server per acquire and release, those inside of scripts too. */
  readonly commands: number
}

export interface Effort {
  /** For how long the code of each is compiled first, in milliseconds. */
  readonly warmUp: number
  /** Blocks of 50, one after the other. */
  readonly blocks: number
  /** Blocks of 64 at a time. */
  readonly loads: number
}

const blockSize = 50
const concurrency = 64
/** How often each of them in a block, and how long a block may take with those that are slow. */
const timesEach = 16
const blockMillis = 500

interface Samples {
  readonly all: Array<number>
  readonly medians: Array<number>
  readonly rates: Array<number>
  /** Of a pair in each block. */
  readonly user: Array<number>
  readonly system: Array<number>
  commands: number
  times: number
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
    const samples: Samples = { all: [], medians: [], rates: [], user: [], system: [], commands: 0, times: 1 }
    const keys = keysOf(`${entry.name}-`, blockSize)
    const warmUntil = performance.now() + effort.warmUp
    do await contender.together(keysOf(`${entry.name}-t`, concurrency), 1)
    while (performance.now() < warmUntil)
    for (let i = 0; i < 10; i++) await contender.sequence(keys)
    await counter.take()
    await contender.sequence(keys)
    samples.commands = total(await counter.take()) / blockSize
    runners.push({ entry, contender, samples })
  }
  for (let block = 0; block < effort.blocks; block++) {
    for (const { contender, entry, samples } of shuffled(runners)) {
      const before = process.cpuUsage()
      const times = await contender.sequence(keysOf(`${entry.name}-`, blockSize))
      const { system, user } = process.cpuUsage(before)
      samples.user.push(user / blockSize)
      samples.system.push(system / blockSize)
      samples.all.push(...times)
      samples.medians.push(median(times))
    }
  }
  for (let load = -2; load < effort.loads; load++) {
    for (const { contender, entry, samples } of shuffled(runners)) {
      const times = load === -2 ? 1 : samples.times
      const started = performance.now()
      await contender.together(keysOf(`${entry.name}-t`, concurrency), times)
      const took = performance.now() - started
      if (load < 0) samples.times = Math.min(timesEach, Math.max(1, Math.floor(blockMillis * times / took)))
      else samples.rates.push(concurrency * times / took * 1000)
    }
  }
  const busy = ({ system, user }: Samples) => user.map((micros, block) => micros + (system[block] ?? Number.NaN))
  const floor = runners.find(({ entry }) => entry.kind === "floor")?.samples
  for (const { contender } of runners) await contender.close()
  return runners.map(({ entry, samples }) => ({
    name: entry.name,
    medianMicros: median(samples.all) * 1000,
    p99Micros: quantile(samples.all, 0.99) * 1000,
    medianRatio: ratios(samples.medians, floor?.medians),
    pairsPerSecond: median(samples.rates),
    throughputRatio: ratios(samples.rates, floor?.rates),
    userMicros: sum(samples.user) / samples.user.length,
    systemMicros: sum(samples.system) / samples.system.length,
    cpuRatio: ratios(busy(samples), floor === undefined ? undefined : busy(floor)),
    commands: samples.commands
  }))
}
