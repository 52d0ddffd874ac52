/**
 * A hot key: many fibers of one process, or of two layers as two processes would have them, take the same key again and
 * again. What it costs when nothing is done under it, and with a millisecond of work.
 */
import type { Contender, Entry, Site } from "./Contender.ts"
import type { Counter } from "./Counts.ts"
import { total } from "./Counts.ts"
import { median, shuffled, sum } from "./stats.ts"

export interface HotKey {
  readonly name: string
  readonly layers: number
  readonly fibers: number
  readonly workMillis: number
  readonly perSecond: number
  /** The smallest share of the layers to the greatest; 1 is fair. */
  readonly fairness: number
  readonly commands: number
}

const shapes = [{ layers: 1, fibers: 16 }, { layers: 2, fibers: 8 }]

const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

/** How many sections so many loops get through. */
const loops = async (contender: Contender, key: string, fibers: number, until: number, millis: number) => {
  if (contender.hot !== undefined) return contender.hot(key, fibers, until, millis)
  const { run } = contender
  if (run === undefined) return 0
  let count = 0
  const work = async () => {
    count++
    if (millis > 0) await sleep(millis)
  }
  await Promise.all(Array.from({ length: fibers }, async () => {
    while (performance.now() < until) await run(key, work)
  }))
  return count
}

let round = 0

export const measure = async (
  entries: ReadonlyArray<Entry>,
  site: Site,
  counter: Counter,
  seconds: number,
  rounds: number
): Promise<ReadonlyArray<HotKey>> => {
  const rows: Array<HotKey> = []
  for (const { fibers, layers } of shapes) {
    for (const workMillis of [0, 1]) {
      const samples = entries.map((entry) => ({ entry, rates: [0], shares: [1], commands: [0] }))
      for (const sample of samples) sample.rates.length = sample.shares.length = sample.commands.length = 0
      for (let i = 0; i <= rounds; i++) {
        for (const { commands, entry, rates, shares } of shuffled(samples)) {
          const contenders = await Promise.all(Array.from({ length: layers }, () => entry.make(site)))
          const key = `hot-${round++}`
          // The first second is that of the compiler; later there are only the connections.
          const warm = i === 0 ? 1000 : 100
          await Promise.all(
            contenders.map((one) => loops(one, `${key}-warm`, fibers, performance.now() + warm, workMillis))
          )
          await counter.take()
          const started = performance.now()
          const counts = await Promise.all(
            contenders.map((one) => loops(one, key, fibers, started + seconds * 1000, workMillis))
          )
          const took = (performance.now() - started) / 1000
          const sent = total(await counter.take())
          if (i > 0) {
            rates.push(sum(counts) / took)
            shares.push(Math.min(...counts) / Math.max(...counts))
            commands.push(sent / sum(counts))
          }
          await Promise.all(contenders.map((one) => one.close()))
        }
      }
      for (const { commands, entry, rates, shares } of samples) {
        rows.push({
          name: entry.name,
          layers,
          fibers,
          workMillis,
          perSecond: median(rates),
          fairness: median(shares),
          commands: median(commands)
        })
      }
    }
  }
  return rows
}
