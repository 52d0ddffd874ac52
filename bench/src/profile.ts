/**
 * Where the time of one acquire and release goes, from a profile of this process: our code, Effect, the driver, Node,
 * and waiting for the server.
 */
import { Session } from "node:inspector/promises"
import type { Contender, Entry, Site } from "./Contender.ts"
import { sum } from "./stats.ts"

/** Who may have the processor. `waiting` is the time in which this process does nothing. */
export const parts = ["core", "backend", "effect", "driver", "node", "garbage", "bench", "waiting"] as const

export type Part = typeof parts[number]

export interface Profile {
  readonly name: string
  /** Pairs at a time. */
  readonly concurrency: number
  /** Microseconds per acquire and release. */
  readonly micros: Readonly<Record<Part, number>>
}

interface Frame {
  readonly functionName: string
  readonly url: string
}

const partOf = ({ functionName, url }: Frame): Part => {
  if (functionName === "(idle)") return "waiting"
  if (functionName === "(garbage collector)") return "garbage"
  if (url.includes("/packages/core/")) return "core"
  if (url.includes("/packages/")) return "backend"
  if (url.includes("/bench/src/")) return "bench"
  if (url.includes("/node_modules/effect/")) return "effect"
  if (url.includes("/node_modules/")) return "driver"
  return "node"
}

const profileOf = async (session: Session, work: () => Promise<unknown>): Promise<ReadonlyMap<Part, number>> => {
  await session.post("Profiler.start")
  await work()
  const { profile: { nodes, samples = [], timeDeltas = [] } } = await session.post("Profiler.stop")
  const frames = new Map(nodes.map(({ callFrame, id }) => [id, partOf(callFrame)]))
  const micros = new Map<Part, number>()
  samples.forEach((id, i) => {
    const part = frames.get(id) ?? "node"
    micros.set(part, (micros.get(part) ?? 0) + Math.max(0, timeDeltas[i] ?? 0))
  })
  return micros
}

const keysOf = (name: string, amount: number) => Array.from({ length: amount }, (_, i) => `profile-${name}-${i}`)

/** So many pairs as take about that long, at the speed of a first hundred. */
const pairsIn = async (contender: Contender, keys: ReadonlyArray<string>, millis: number): Promise<number> => {
  const amount = Math.ceil(100 / keys.length)
  await contender.together(keys, amount)
  const started = performance.now()
  await contender.together(keys, amount)
  return Math.ceil(amount * Math.max(1, millis / (performance.now() - started)))
}

/** Profiles each contender, first one pair at a time, then many. */
export const measure = async (
  entries: ReadonlyArray<Entry>,
  site: Site,
  millis: number
): Promise<ReadonlyArray<Profile>> => {
  const session = new Session()
  session.connect()
  await session.post("Profiler.enable")
  await session.post("Profiler.setSamplingInterval", { interval: 200 })
  const rows: Array<Profile> = []
  for (const { make, name } of entries) {
    const contender = await make(site)
    for (const concurrency of [1, 64]) {
      const keys = keysOf(name, concurrency)
      const times = await pairsIn(contender, keys, millis)
      // The first thousands are compiled code in the making.
      await contender.together(keys, times)
      const micros = await profileOf(session, () => contender.together(keys, times))
      const share = (part: Part) => (micros.get(part) ?? 0) / (times * concurrency)
      rows.push({
        name,
        concurrency,
        micros: {
          core: share("core"),
          backend: share("backend"),
          effect: share("effect"),
          driver: share("driver"),
          node: share("node"),
          garbage: share("garbage"),
          bench: share("bench"),
          waiting: share("waiting")
        }
      })
    }
    await contender.close()
  }
  session.disconnect()
  return rows
}

/** What the process itself needed for one pair. */
export const busy = ({ micros }: Profile): number => sum(Object.values(micros)) - micros.waiting
