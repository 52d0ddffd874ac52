/**
 * What is built on locks: several free keys and a free permit beside one free key, and many waiters for a few permits.
 */
import { type Lock, type LockBackendError, withLock, withLocks, withPermit } from "@dlock/core"
import { Effect } from "effect"
import { setTimeout as sleep } from "node:timers/promises"
import type { Contender, Entry, Site } from "./Contender.ts"
import { type Backend, layers } from "./contenders/index.ts"
import { median, shuffled } from "./stats.ts"

const perBlock = 50
const waiters = 64
const turns = 10
/** Rounds that are not counted, in which the code of all contenders is compiled. */
const warmUps = 15

export interface Free {
  readonly name: string
  /** Microseconds. */
  readonly micros: number
  /** The median over blocks to one free key. */
  readonly ratio: number
}

export interface Permits {
  readonly name: string
  readonly limit: number
  /** Sections of a millisecond, of 64 waiters. */
  readonly perSecond: number
  /** More inside than there are permits. */
  readonly overlaps: number
}

export interface Beyond {
  readonly free: ReadonlyArray<Free>
  readonly permits: ReadonlyArray<Permits>
}

const keys = Array.from({ length: 8 }, (_, i) => `several-${i}`)

const free: ReadonlyArray<readonly [name: string, program: Effect.Effect<unknown, unknown, Lock>]> = [
  ["one key", withLock("one", Effect.void)],
  ["eight keys", withLocks(keys, Effect.void)],
  ["one of 50 permits", withPermit("permits", { limit: 50 }, Effect.void)]
]

const time = (program: Effect.Effect<unknown, unknown, Lock>) =>
  Effect.gen(function*() {
    const started = performance.now()
    for (let i = 0; i < perBlock; i++) yield* program
    return (performance.now() - started) * 1000 / perBlock
  })

const measureFree = Effect.fnUntraced(function*(blocks: number) {
  const samples = free.map((): Array<number> => [])
  for (let block = -60; block < blocks; block++) {
    for (const i of shuffled(free.map((_, i) => i))) {
      const micros = yield* time(free[i]?.[1] ?? Effect.void)
      if (block >= 0) samples[i]?.push(micros)
    }
  }
  return free.map(([name], i): Free => ({
    name,
    micros: median(samples[i] ?? []),
    ratio: median((samples[i] ?? []).map((micros, at) => micros / (samples[0]?.[at] ?? Number.NaN)))
  }))
})

const drain = async (permit: NonNullable<Contender["permit"]>, key: string, limit: number) => {
  let inside = 0
  let overlaps = 0
  const work = async () => {
    if (++inside > limit) overlaps++
    await sleep(1)
    inside--
  }
  const started = performance.now()
  await Promise.all(Array.from({ length: waiters }, async () => {
    for (let i = 0; i < turns; i++) await permit(key, limit, work)
  }))
  return { perSecond: waiters * turns * 1000 / (performance.now() - started), overlaps }
}

let round = 0

const measurePermits = async (entries: ReadonlyArray<Entry>, site: Site, rounds: number) => {
  const rows: Array<Permits> = []
  for (const limit of [5, 50]) {
    const samples = entries.map(({ name }) => ({ name, rates: [0].slice(1), overlaps: 0 }))
    const contenders: Array<Contender> = []
    for (const { make } of entries) contenders.push(await make(site))
    for (let i = -warmUps; i < rounds; i++) {
      for (const at of shuffled(entries.map((_, at) => at))) {
        const [permit, sample] = [contenders[at]?.permit, samples[at]]
        if (permit === undefined || sample === undefined) continue
        const { overlaps, perSecond } = await drain(permit, `waiting-${round++}`, limit)
        sample.overlaps += overlaps
        if (i >= 0) sample.rates.push(perSecond)
      }
    }
    for (const contender of contenders) await contender.close()
    for (const { name, overlaps, rates } of samples) {
      if (rates.length > 0) rows.push({ name, limit, perSecond: median(rates), overlaps })
    }
  }
  return rows
}

/** The entries without permits are left out. */
export const measure = async (
  backend: Backend,
  entries: ReadonlyArray<Entry>,
  site: Site,
  quick: boolean
): Promise<Beyond> => {
  const program: Effect.Effect<ReadonlyArray<Free>, unknown, Lock> = measureFree(quick ? 3 : 20)
  const over: Effect.Effect<ReadonlyArray<Free>, unknown | LockBackendError> = Effect.provide(
    program,
    layers[backend](site)
  )
  return {
    free: await Effect.runPromise(over),
    permits: await measurePermits(entries, site, quick ? 1 : 3)
  }
}
