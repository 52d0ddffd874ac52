/**
 * Many locks that are kept for long: what renewing them costs. One contender at a time, in a process of its own.
 */
import { setTimeout as sleep } from "node:timers/promises"
import type { Entry, Site } from "./Contender.ts"
import type { Backend } from "./contenders/index.ts"
import type { Counter } from "./Counts.ts"
import { total } from "./Counts.ts"
import { launch } from "./workers.ts"

export interface Holding {
  readonly name: string
  readonly count: number
  readonly takenPerSecond: number
  /** Of the servers. */
  readonly commandsPerSecond: number
  /** Of the client to its sockets. */
  readonly writesPerSecond: number
  /** Of one core. */
  readonly cpuPercent: number
  readonly heapPerLock: number
  readonly residentPerLock: number
  readonly lagP99Millis: number
  readonly lagMaxMillis: number
  readonly lost: number
}

const ttlMillis = 10_000

export const measure = async (
  backend: Backend,
  { name }: Entry,
  site: Site,
  counter: Counter,
  count: number,
  settleMillis: number,
  millis: number
): Promise<Holding> => {
  const worker = launch()
  try {
    const subject = { backend, name, site }
    const taken = await worker.ask("take", { ...subject, count, ttlMillis })
    // Until the renewals have found their rhythm, and the code that runs for each of them is compiled.
    await sleep(settleMillis)
    await counter.take()
    const watched = await worker.ask("watch", { millis })
    const commands = total(await counter.take())
    await worker.ask("give", {})
    return {
      name,
      count,
      takenPerSecond: taken.perSecond,
      commandsPerSecond: commands / millis * 1000,
      writesPerSecond: watched.writesPerSecond,
      cpuPercent: watched.cpuPercent,
      heapPerLock: taken.heapPerLock,
      residentPerLock: taken.residentPerLock,
      lagP99Millis: watched.lagP99,
      lagMaxMillis: watched.lagMax,
      lost: watched.lost
    }
  } finally {
    worker.stop()
  }
}
