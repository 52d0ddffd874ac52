/**
 * Whether one lock costs more when there are many others: many keys that are held, many waiters.
 */
import type { Entry, Site } from "./Contender.ts"
import type { Backend } from "./contenders/index.ts"
import type { Counter } from "./Counts.ts"
import { total } from "./Counts.ts"
import { drain, gapsOf } from "./handOver.ts"
import { median } from "./stats.ts"
import { launch, type Worker } from "./workers.ts"

export interface Growth {
  /**
   * `keys`: a pair of acquire and release beside that many held keys. `waiters`: a hand-over of one key for which that
   * many wait. `lines`: a hand-over of one of that many keys, for each of which four wait.
   */
  readonly what: "keys" | "waiters" | "lines"
  readonly amount: number
  /** Of the pair, to that of the bare driver next to it in time; or of the hand-over. */
  readonly ratio: number | undefined
  readonly micros: number
  /** Of the server for each. */
  readonly commands: number
}

const keysOf = (prefix: string, amount: number) => Array.from({ length: amount }, (_, i) => `${prefix}${i}`)

/** Long enough that nothing is renewed while it is measured. */
const ttlMillis = 600_000

const heldKeys = async (
  backend: Backend,
  site: Site,
  counter: Counter,
  floor: Entry | undefined,
  amounts: ReadonlyArray<number>,
  quick: boolean
): Promise<ReadonlyArray<Growth>> => {
  const worker = launch()
  const dlock = { backend, name: "dlock", site }
  const rows: Array<Growth> = []
  const keys = keysOf("grow-", 50)
  let held = 0
  try {
    for (let i = 0; i < (quick ? 2 : 20); i++) {
      await worker.ask("pairs", { ...dlock, keys })
      if (floor !== undefined) await worker.ask("pairs", { ...dlock, name: floor.name, keys })
    }
    for (const amount of amounts) {
      await worker.ask("take", { ...dlock, count: amount - held, ttlMillis })
      held = amount
      await counter.take()
      await worker.ask("pairs", { ...dlock, keys })
      const commands = total(await counter.take()) / keys.length
      const [ours, ratios]: [Array<number>, Array<number>] = [[], []]
      for (let block = 0; block < (quick ? 2 : 20); block++) {
        const mine = median(await worker.ask("pairs", { ...dlock, keys }))
        ours.push(mine)
        if (floor === undefined) continue
        ratios.push(mine / median(await worker.ask("pairs", { ...dlock, name: floor.name, keys })))
      }
      const ratio = ratios.length === 0 ? undefined : median(ratios)
      rows.push({ what: "keys", amount, ratio, micros: median(ours) * 1000, commands })
    }
    await worker.ask("give", {})
  } finally {
    worker.stop()
  }
  return rows
}

const lines = async (
  what: "waiters" | "lines",
  backend: Backend,
  site: Site,
  counter: Counter,
  crew: ReadonlyArray<Worker>,
  amounts: ReadonlyArray<number>
): Promise<ReadonlyArray<Growth>> => {
  const rows: Array<Growth> = []
  for (const amount of amounts) {
    const processes = Math.min(crew.length, what === "waiters" ? amount : 4)
    const shape = { processes, waiters: what === "waiters" ? Math.round(amount / processes) : 1 }
    const [gaps, commands]: [Array<number>, Array<number>] = [[], []]
    // The first round starts processes.
    for (let round = -1; round < 2; round++) {
      const keys = keysOf(`${what}-${amount}-${round}-`, what === "waiters" ? 1 : amount)
      await counter.take()
      const input = { backend, name: "dlock", site, keys, workMillis: 1, againMillis: 0 }
      const { byWaiter } = await drain(crew, shape, input)
      const asked = total(await counter.take())
      if (round < 0) continue
      commands.push(asked / byWaiter.flat().length)
      // Only one key at a time says anything about the time between two.
      if (what === "waiters") gaps.push(...gapsOf(byWaiter.flat()))
    }
    rows.push({ what, amount, ratio: undefined, micros: median(gaps) * 1000, commands: median(commands) })
  }
  return rows
}

export const measure = async (
  backend: Backend,
  site: Site,
  counter: Counter,
  crew: ReadonlyArray<Worker>,
  floor: Entry | undefined,
  quick: boolean
): Promise<ReadonlyArray<Growth>> => {
  // The other servers write to disk, or know no batches: a hundred thousand keys take them minutes.
  const most = quick ? 100 : backend === "redis" ? 100_000 : 10_000
  const keys = [1, 100, 1000, 10_000, 100_000].filter((amount) => amount <= most)
  const waiters = [16, 256, 1000].filter((amount) => amount <= (quick ? 16 : 1000))
  // A wait on MySQL is a connection.
  const separate = [1, 10, 1000].filter((amount) => amount <= (quick || backend === "mysql" ? 10 : 1000))
  return [
    ...await heldKeys(backend, site, counter, floor, keys, quick),
    ...await lines("waiters", backend, site, counter, crew, waiters),
    ...await lines("lines", backend, site, counter, crew, separate)
  ]
}
