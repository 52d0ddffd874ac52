/**
 * `linger`: what it gives to one fiber that takes the same key again and again, and what it costs a waiter in another process.
 */
import { setTimeout as sleep } from "node:timers/promises"
import type { Contender, Site } from "./Contender.ts"
import { type Backend, contenders, variant } from "./contenders/index.ts"
import { median } from "./stats.ts"
import { launch } from "./workers.ts"

export interface Linger {
  readonly name: string
  /** Of nothing, by one fiber on one key. */
  readonly sectionsPerSecond: number
  /** The pair of another process on that key while it is not in use: right after a section, and 100 ms later. */
  readonly idleMillis: number
  readonly laterMillis: number
  /** The same while the first process works under it a millisecond at a time, without end. */
  readonly busyMillis: number
}

export interface LingerRun {
  /** Of the bare driver next to it: what "round trip" means here. */
  readonly tripMillis: number | undefined
  readonly rows: ReadonlyArray<Linger>
}

let round = 0

/** How long the other process' pair takes, right after a section of the first one. */
const afterIdle = async (use: (key: string) => Promise<unknown>, other: Contender, rounds: number, pause = 0) => {
  const times: Array<number> = []
  for (let i = 0; i < rounds; i++) {
    const key = `linger-${round++}`
    await use(key)
    if (pause > 0) await sleep(pause)
    times.push(...await other.sequence([key]))
  }
  return median(times)
}

export const measure = async (backend: Backend, site: Site, quick: boolean): Promise<LingerRun> => {
  const rounds = quick ? 20 : 200
  const floor = contenders[backend].find(({ kind }) => kind === "floor")
  const bare = await floor?.make(site)
  const tripOf = async () => {
    if (bare === undefined) return undefined
    return median(await bare.sequence(Array.from({ length: rounds }, (_, i) => `trip-${i}`))) / 2
  }
  await tripOf()
  const tripMillis = await tripOf()
  const dlock = contenders[backend].find(({ kind }) => kind === "dlock")
  const entries = [...(dlock === undefined ? [] : [dlock]), variant(backend, "linger")]
  const rows: Array<Linger> = []
  for (const { name } of entries) {
    const worker = launch()
    const other = await dlock?.make(site)
    if (other === undefined) continue
    try {
      const subject = { backend, name, site }
      const loop = (key: string, millis: number, workMillis: number) =>
        worker.ask("loop", { ...subject, key, fibers: 1, millis, workMillis })
      await loop("linger-warm", 1000, 0)
      const millis = quick ? 500 : 2000
      const count = await loop("linger-hot", millis, 0)
      const use = (key: string) => worker.ask("pairs", { ...subject, keys: [key] })
      await afterIdle(use, other, rounds / 10)
      const idleMillis = await afterIdle(use, other, rounds)
      const laterMillis = await afterIdle(use, other, Math.min(rounds, 50), 100)
      const busy = loop("linger-busy", millis, 1)
      const times: Array<number> = []
      const until = performance.now() + millis - 200
      while (performance.now() < until) {
        times.push(...await other.sequence(["linger-busy"]))
        // A waiter that comes back at once is part of the hand-over; this one comes when it comes.
        await sleep(1 + Math.random() * 5)
      }
      await busy
      rows.push({ name, sectionsPerSecond: count / millis * 1000, idleMillis, laterMillis, busyMillis: median(times) })
    } finally {
      await other.close()
      worker.stop()
    }
  }
  await bare?.close()
  return { tripMillis, rows }
}
