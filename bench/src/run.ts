/**
 * One backend: all of its figures, on the terminal and in a file.
 */
import type { HarnessError } from "@dlock/test/harness/HarnessError"
import { Effect, type Scope } from "effect"
import { loadavg } from "node:os"
import type { Entry, Site } from "./Contender.ts"
import { type Backend, contenders } from "./contenders/index.ts"
import { redisAcquire } from "./contenders/redis.ts"
import * as Counts from "./Counts.ts"
import * as growth from "./growth.ts"
import * as handOver from "./handOver.ts"
import * as holding from "./holding.ts"
import type { Options } from "./options.ts"
import type { Figures } from "./panels.ts"
import * as profile from "./profile.ts"
import * as report from "./report.ts"
import { save } from "./results.ts"
import { start } from "./sites.ts"
import * as uncontended from "./uncontended.ts"
import { crew } from "./workers.ts"

const isWanted = ({ only }: Options) => (entry: Entry): boolean =>
  only === undefined || entry.kind === "floor" || entry.name.includes(only)

const shapes = [{ processes: 1, waiters: 16 }, { processes: 4, waiters: 4 }]

/** Those for whom hundreds of waiters are no storm of questions. */
const crowd = { processes: 4, waiters: 64 }
const standsACrowd = ({ kind, name }: Entry) =>
  kind === "dlock" || name === "live-mutex" || name === "GET_LOCK on a pool"

const measureHandOver = async (
  backend: Backend,
  site: Site,
  counter: Counts.Counter,
  options: Options,
  workers: Parameters<typeof handOver.measure>[4]
) => {
  const waiting = contenders[backend]
    .filter(isWanted(options))
    .filter(({ kind }) => kind !== "floor" || backend === "zookeeper")
    // Over five servers many who ask again at once and for ever split the votes, and nobody gets the key.
    .filter(({ name }) => backend !== "redlock" || !name.includes("(fast)"))
  const rows: Array<handOver.HandOver> = []
  for (const shape of shapes) {
    rows.push(...await handOver.measure(backend, waiting, site, counter, workers, shape, options.quick ? 2 : 10))
  }
  const many = waiting.filter(standsACrowd)
  if (many.length > 0) {
    rows.push(...await handOver.measure(backend, many, site, counter, workers, crowd, options.quick ? 1 : 2))
  }
  return rows
}

const measureHolding = async (backend: Backend, site: Site, counter: Counts.Counter, options: Options) => {
  const rows: Array<holding.Holding> = []
  const entries = [...contenders[backend], ...(backend === "redis" ? [redisAcquire] : [])].filter(isWanted(options))
    // How somebody waits is nothing to those who hold.
    .filter(({ name }) => !name.includes("(fast)"))
  for (const count of options.many ? [10_000, 50_000] : [10_000]) {
    for (const entry of entries) {
      const { hold, close } = await entry.make(site)
      await close()
      if (hold === undefined) continue
      rows.push(await holding.measure(backend, entry, site, counter, count, options.quick ? 5000 : 10_000))
    }
  }
  return rows
}

export const runBackend = Effect.fnUntraced(
  function*(backend: Backend, options: Options): Effect.fn.Return<void, HarnessError, Scope.Scope> {
    const site = yield* start(backend)
    const counter = yield* Effect.promise(() => Counts.counter(backend, site.addrs))
    const has = (part: Options["parts"][number]) => options.parts.includes(part)
    const load = loadavg()[0] ?? 0
    const figures: { -readonly [K in keyof Figures]: Figures[K] } = {}
    const keeps = !options.quick && options.only === undefined
    // Kept after each part: the next one may take long.
    const show = (text: string) =>
      Effect.sync(() => {
        console.log(`\n${backend}\n${text}`)
        if (keeps) save(backend, load, figures)
      })
    if (has("uncontended")) {
      const entries = contenders[backend].filter(isWanted(options))
      const effort = options.quick ? { blocks: 10, loads: 3 } : { blocks: 40, loads: 8 }
      const rows = yield* Effect.promise(() => uncontended.measure(entries, site, counter, effort))
      figures.uncontended = rows
      yield* show(report.uncontended(rows))
    }
    if (has("handover")) {
      const workers = yield* crew(4)
      const rows = yield* Effect.promise(() => measureHandOver(backend, site, counter, options, workers))
      figures.handOver = rows
      yield* show(report.handOver(rows))
    }
    if (has("holding")) {
      const rows = yield* Effect.promise(() => measureHolding(backend, site, counter, options))
      figures.holding = rows
      yield* show(report.holding(rows))
    }
    if (has("growth") && backend !== "redlock") {
      const workers = yield* crew(4)
      const floor = contenders[backend].find(({ kind }) => kind === "floor")
      const rows = yield* Effect.promise(() => growth.measure(backend, site, counter, workers, floor, options.quick))
      figures.growth = rows
      yield* show(report.growth(rows))
    }
    if (has("profile")) {
      const entries = contenders[backend].filter(({ kind }) => kind !== "peer").filter(isWanted(options))
      const rows = yield* Effect.promise(() => profile.measure(entries, site, options.quick ? 2000 : 20_000))
      figures.profile = rows
      yield* show(report.profile(rows))
    }
    yield* Effect.promise(() => counter.close())
  },
  Effect.scoped
)
