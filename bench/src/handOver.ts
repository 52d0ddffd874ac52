/**
 * A key that many want: how fast it goes from one to the next, and at what cost.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { type Entry, now, type Site } from "./Contender.ts"
import type { Backend } from "./contenders/index.ts"
import type { Counter } from "./Counts.ts"
import { total } from "./Counts.ts"
import { median, quantile, shuffled, sum } from "./stats.ts"
import type { Span } from "./Task.ts"
import type { Worker } from "./workers.ts"

/** What waits: every one of `waiters` in each of `processes`. */
export interface Shape {
  readonly processes: number
  readonly waiters: number
}

export interface HandOver extends Shape {
  readonly name: string
  /** With a millisecond of work in each. */
  readonly perSecond: number
  /** From the end of the work of one to the beginning of the next one's. */
  readonly gapMedianMillis: number
  readonly gapP99Millis: number
  readonly commands: number
  /** Where all come back at once: the smallest share of the acquisitions to the greatest. 1 is fair. */
  readonly fairness: number | undefined
  readonly errors: number
  /** Two inside at the same time. */
  readonly overlaps: number
}

interface Samples {
  readonly gaps: Array<number>
  readonly rates: Array<number>
  acquisitions: number
  commands: number
  errors: number
  overlaps: number
  fairness: number | undefined
}

/** How long the end of a section may seem to lie after the beginning of the next: the clock is read in another place. */
const clockNoise = 0.05

/** Asks the crew to drain keys that are all of one contender. */
export const drain = async (
  crew: ReadonlyArray<Worker>,
  { processes, waiters }: Shape,
  input: {
    readonly backend: Backend
    readonly name: string
    readonly site: Site
    readonly keys: ReadonlyArray<string>
    readonly workMillis: number
    readonly againMillis: number
  }
) => {
  const answers = await Promise.all(
    crew.slice(0, processes).map((worker) => worker.ask("drain", { ...input, waiters }))
  )
  return {
    byWaiter: answers.flatMap(({ spans }) => spans),
    errors: answers.flatMap(({ errors }) => errors)
  }
}

export const gapsOf = (spans: ReadonlyArray<Span>): Array<number> => {
  const inOrder = spans.toSorted(([a], [b]) => a - b)
  return inOrder.slice(1).map(([start], i) => start - (inOrder[i]?.[1] ?? Number.NaN))
}

/**
 * The floor of a hand-over: one client alone, no waiting. It works for a millisecond and then makes the bare driver's
 * requests, release and acquire, one after the other; and one that makes no request, which shows what the timer costs.
 */
export const alone = async (floor: Entry | undefined, site: Site, rounds: number): Promise<ReadonlyArray<HandOver>> => {
  const contender = await floor?.make(site)
  const row = async (name: string, request: () => Promise<unknown>): Promise<HandOver> => {
    const gaps: Array<number> = []
    const started = now()
    for (let i = 0; i < rounds * 16; i++) {
      await sleep(1)
      const ended = now()
      await request()
      gaps.push(now() - ended)
    }
    return {
      name,
      processes: 1,
      waiters: 1,
      perSecond: rounds * 16000 / (now() - started),
      gapMedianMillis: median(gaps),
      gapP99Millis: quantile(gaps, 0.99),
      commands: 0,
      fairness: undefined,
      errors: 0,
      overlaps: 0
    }
  }
  const rows = [await row("the timer alone", async () => {})]
  if (floor !== undefined && contender !== undefined) {
    await contender.sequence(Array.from({ length: 100 }, () => "alone"))
    rows.push(await row(`${floor.name}, alone`, () => contender.sequence(["alone"])))
    await contender.close()
  }
  return rows
}

let round = 0

export const measure = async (
  backend: Backend,
  entries: ReadonlyArray<Entry>,
  site: Site,
  counter: Counter,
  crew: ReadonlyArray<Worker>,
  shape: Shape,
  rounds: number
): Promise<ReadonlyArray<HandOver>> => {
  const contests = entries.map((entry) => ({
    name: entry.name,
    samples: {
      gaps: [],
      rates: [],
      acquisitions: 0,
      commands: 0,
      errors: 0,
      overlaps: 0,
      fairness: undefined
    } as Samples
  }))
  const ask = (name: string, workMillis: number, againMillis: number) =>
    drain(crew, shape, { backend, name, site, keys: [`drain-${round++}`], workMillis, againMillis })
  for (const { name } of contests) await ask(name, 0, 0)
  // Also the second in which code that is used often is compiled: what follows is how it goes on.
  if (shape.processes * shape.waiters <= 16) {
    for (const { name, samples } of contests) {
      const { byWaiter, errors } = await ask(name, 0, 1000)
      const shares = byWaiter.map((spans) => spans.length)
      samples.fairness = Math.min(...shares) / Math.max(...shares)
      samples.errors += errors.length
      samples.overlaps += gapsOf(byWaiter.flat()).filter((gap) => gap < -clockNoise).length
    }
  }
  for (let i = 0; i < rounds; i++) {
    for (const { name, samples } of shuffled(contests)) {
      await counter.take()
      const { byWaiter, errors } = await ask(name, 1, 0)
      samples.commands += total(await counter.take())
      const spans = byWaiter.flat()
      const gaps = gapsOf(spans)
      samples.acquisitions += spans.length
      samples.gaps.push(...gaps)
      samples.errors += errors.length
      samples.overlaps += gaps.filter((gap) => gap < -clockNoise).length
      const from = Math.min(...spans.map(([start]) => start))
      const to = Math.max(...spans.map(([, end]) => end))
      samples.rates.push(spans.length / (to - from) * 1000)
    }
  }
  return contests.map(({ name, samples }) => ({
    name,
    ...shape,
    perSecond: median(samples.rates),
    gapMedianMillis: median(samples.gaps),
    gapP99Millis: quantile(samples.gaps, 0.99),
    commands: samples.commands / sum([samples.acquisitions]),
    fairness: samples.fairness,
    errors: samples.errors,
    overlaps: samples.overlaps
  }))
}
