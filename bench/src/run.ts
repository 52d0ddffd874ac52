/**
 * One backend: all of its figures, on the terminal and in a file.
 */
import type { HarnessError } from "@dlock/test/harness/HarnessError"
import { Effect, type Scope } from "effect"
import { loadavg } from "node:os"
import * as beyond from "./beyond.ts"
import type { Entry, Site } from "./Contender.ts"
import { type Backend, contenders, variant } from "./contenders/index.ts"
import * as Counts from "./Counts.ts"
import * as growth from "./growth.ts"
import * as handOver from "./handOver.ts"
import * as holding from "./holding.ts"
import * as hotKey from "./hotKey.ts"
import * as linger from "./linger.ts"
import * as network from "./network.ts"
import type { Options, Part } from "./options.ts"
import type { Figures } from "./panels.ts"
import * as postgresCost from "./postgresCost.ts"
import * as profile from "./profile.ts"
import * as report from "./report.ts"
import { save } from "./results.ts"
import { start } from "./sites.ts"
import * as uncontended from "./uncontended.ts"
import { crew, type Worker } from "./workers.ts"

interface Run {
  readonly backend: Backend
  readonly site: Site
  readonly counter: Counts.Counter
  readonly options: Options
  /** The contenders that are wanted. */
  readonly entries: ReadonlyArray<Entry>
  readonly workers: ReadonlyArray<Worker>
}

/** What a part found, and how it is shown. */
interface Found {
  readonly figures: Figures
  readonly text: string
}

const isWanted = ({ only }: Options) => (entry: Entry): boolean =>
  only === undefined || entry.kind === "floor" || entry.name === only || entry.name.startsWith(`${only} (`) ||
  entry.name.startsWith(`${only}, `)

const isFast = ({ name }: Entry): boolean => name.includes("(fast)")

const shapes = [{ processes: 1, waiters: 16 }, { processes: 4, waiters: 4 }]

/** Those for whom hundreds of waiters are no storm of questions. */
const crowd = { processes: 4, waiters: 64 }
const standsACrowd = ({ kind, name }: Entry) =>
  kind === "dlock" || name === "live-mutex" || name === "GET_LOCK on a pool"

const measureUncontended = async ({ backend, counter, entries, options, site }: Run): Promise<Found> => {
  const effort = options.quick ? { warmUp: 100, blocks: 10, loads: 3 } : { warmUp: 3000, blocks: 40, loads: 8 }
  const rows = await uncontended.measure(entries, site, counter, effort)
  const text = report.uncontended(rows)
  if (backend !== "postgres") return { figures: { uncontended: rows }, text }
  const costs = await postgresCost.measure(entries.filter(({ kind }) => kind !== "peer"), site)
  return {
    figures: { uncontended: rows, postgresCost: costs },
    text: `${text}\n\n${report.postgresCost(costs)}`
  }
}

const measureNetwork = async ({ entries, options, site, workers: [proxy] }: Run): Promise<Found> => {
  if (proxy === undefined) throw new Error("no process for the proxy")
  const effort = options.quick ? { warmUp: 100, blocks: 5, loads: 2 } : { warmUp: 3000, blocks: 20, loads: 4 }
  // live-mutex is not reached through the proxy, and how others wait does not concern what does not wait.
  const some = entries.filter((entry) => entry.name !== "live-mutex" && !isFast(entry))
  const found = await network.measure(some, site, proxy, effort)
  return { figures: { network: found }, text: report.network(found) }
}

const measureHandOver = async ({ backend, counter, entries, options, site, workers }: Run): Promise<Found> => {
  const waiting = entries
    .filter(({ kind }) => kind !== "floor" || backend === "zookeeper")
    // Over five servers many that ask again at once and for ever split the votes, and none gets the key.
    .filter((entry) => backend !== "redlock" || !(isFast(entry) || entry.name === "redis-semaphore"))
  const floor = entries.find(({ kind }) => kind === "floor")
  const rows = [...await handOver.alone(floor, site, options.quick ? 2 : 20)]
  for (const shape of shapes) {
    rows.push(...await handOver.measure(backend, waiting, site, counter, workers, shape, options.quick ? 2 : 8))
  }
  const many = waiting.filter(standsACrowd)
  if (many.length > 0) {
    rows.push(...await handOver.measure(backend, many, site, counter, workers, crowd, options.quick ? 1 : 2))
  }
  return { figures: { handOver: rows }, text: report.handOver(rows) }
}

const measureHot = async ({ backend, counter, entries, options, site }: Run): Promise<Found> => {
  const some = [...entries, variant(backend, "turn")]
    .filter(isWanted(options))
    .filter((entry) =>
      entry.kind === "dlock" || (backend === "redis" && (isFast(entry) || entry.name === "live-mutex"))
    )
  const rows = await hotKey.measure(some, site, counter, 1, options.quick ? 1 : 3)
  return { figures: { hotKey: rows }, text: report.hotKey(rows) }
}

const measureLinger = async ({ backend, options, site }: Run): Promise<Found> => {
  const found = await linger.measure(backend, site, options.quick)
  return { figures: { linger: found }, text: report.linger(found) }
}

const measureBeyond = async ({ backend, entries, options, site }: Run): Promise<Found> => {
  const found = await beyond.measure(backend, entries.filter((entry) => !isFast(entry)), site, options.quick)
  return { figures: { beyond: found }, text: report.beyond(found) }
}

const measureHolding = async ({ backend, counter, entries, options, site }: Run): Promise<Found> => {
  const rows: Array<holding.Holding> = []
  const some = [...entries, variant(backend, "acquire")]
    .filter(isWanted(options))
    // How others wait does not concern a holder, and sesamecare renews as redlock does.
    .filter((entry) => !isFast(entry) && entry.name !== "sesamecare")
  for (const count of options.quick ? [500] : options.many ? [10_000, 50_000] : [10_000]) {
    for (const entry of some) {
      const { hold, close } = await entry.make(site)
      await close()
      if (hold === undefined) continue
      const [settle, millis] = options.quick ? [5000, 5000] : [30_000, 10_000]
      try {
        rows.push(await holding.measure(backend, entry, site, counter, count, settle, millis))
      } catch (cause) {
        // Some peers cannot take so many at a time.
        if (entry.kind !== "peer") throw cause
        process.stderr.write(`${entry.name} with ${count} locks: ${String(cause)}\n`)
      }
    }
  }
  return { figures: { holding: rows }, text: report.holding(rows) }
}

const measureGrowth = async ({ backend, counter, entries, options, site, workers }: Run): Promise<Found> => {
  const floor = entries.find(({ kind }) => kind === "floor")
  const rows = await growth.measure(backend, site, counter, workers, floor, options.quick)
  return { figures: { growth: rows }, text: report.growth(rows) }
}

const measureProfile = async ({ entries, options, site }: Run): Promise<Found> => {
  const some = entries.filter(({ kind }) => kind !== "peer")
  const rows = await profile.measure(some, site, options.quick ? 500 : 3000)
  return { figures: { profile: rows }, text: report.profile(rows) }
}

const measures: ReadonlyArray<readonly [part: Part, measure: (run: Run) => Promise<Found>]> = [
  ["uncontended", measureUncontended],
  ["network", measureNetwork],
  ["handover", measureHandOver],
  ["hot", measureHot],
  ["linger", measureLinger],
  ["beyond", measureBeyond],
  ["holding", measureHolding],
  ["growth", measureGrowth],
  ["profile", measureProfile]
]

const processes: Partial<Record<Part, number>> = { network: 1, handover: 4, growth: 4 }

export const runBackend = Effect.fnUntraced(
  function*(backend: Backend, options: Options): Effect.fn.Return<void, HarnessError, Scope.Scope> {
    const site = yield* start(backend)
    const counter = yield* Effect.promise(() => Counts.counter(backend, site.addrs))
    const load = loadavg()[0] ?? 0
    const keeps = !options.quick && options.only === undefined
    const entries = contenders[backend].filter(isWanted(options))
    for (const [part, measure] of measures) {
      if (!options.parts.includes(part)) continue
      const started = performance.now()
      const { figures, text } = yield* Effect.scoped(Effect.flatMap(
        crew(processes[part] ?? 0),
        (workers) => Effect.promise(() => measure({ backend, site, counter, options, entries, workers }))
      ))
      const seconds = Math.round((performance.now() - started) / 1000)
      // Kept after each part: the next one may take long.
      yield* Effect.sync(() => {
        console.log(`\n${backend}, ${part}: ${seconds} s\n${text}`)
        if (keeps) save(backend, load, figures)
      })
    }
    yield* Effect.promise(() => counter.close())
  },
  Effect.scoped
)
