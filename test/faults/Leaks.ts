/**
 * Leaks: after many acquire/release pairs, and after many faults, a process has no more fibers, timers, listeners,
 * connections and memory than before, and no more watches and subscriptions in the server.
 */
import { Data, Effect } from "effect"
import type { Scope } from "effect"
import * as ChildProcess from "node:child_process"
import { bundled } from "../harness/Bundle.ts"
import type { HarnessError } from "../harness/HarnessError.ts"
import type { Violation } from "./checks/Promises.ts"
import { now } from "./Monotonic.ts"
import type { Random } from "./Random.ts"
import { type Connection, variable } from "./Spec.ts"
import { pave, type Target, type Way } from "./Target.ts"

/** What the process is told when it is started. */
export interface LeakSpec {
  readonly connection: Connection
  readonly ttl: number
}

export type Command =
  | { readonly do: "pairs", readonly pairs: number }
  | { readonly do: "glance" }
  | { readonly do: "measure" }
  /** Pairs that may fail, until the next command. */
  | { readonly do: "suffer" }
  | { readonly do: "stop" }

/** What can be counted at once. */
export interface Glance {
  readonly timers: number
  readonly handles: number
  readonly listeners: number
}

/** What a process has, after its garbage was collected. `heap` in bytes. */
export interface Inventory extends Glance {
  readonly fibers: number
  readonly sockets: number
  readonly warnings: number
  readonly heap: number
}

/** What was done, and what it left. */
export interface LeakFigures {
  readonly pairs: number
  readonly faults: number
  readonly before: Inventory & Record<string, number>
  readonly afterPairs: Inventory & Record<string, number>
  readonly afterFaults: Inventory & Record<string, number>
}

class Died extends Data.TaggedError("Died")<{ readonly output: string }> {}

interface Process {
  readonly tell: (command: Command) => Effect.Effect<void>
  /** The next thing that it says. */
  readonly hear: Effect.Effect<unknown, Died>
}

const start = (spec: LeakSpec): Effect.Effect<Process, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const child = ChildProcess.spawn(process.execPath, ["--no-warnings", "--expose-gc", bundled("leaker")], {
          env: { ...process.env, NODE_OPTIONS: "", [variable]: JSON.stringify(spec) },
          stdio: ["ignore", "pipe", "pipe", "ipc"]
        })
        const said: Array<unknown> = []
        const heard: { output: string, gone: boolean } = { output: "", gone: false }
        for (const stream of [child.stdout, child.stderr]) stream?.on("data", (chunk) => heard.output += String(chunk))
        child.on("message", (value) => said.push(value))
        child.on("error", () => heard.gone = true)
        child.on("exit", () => heard.gone = true)
        return { child, said, heard }
      }),
      ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
    ),
    ({ child, heard, said }) => ({
      tell: (command) => Effect.sync(() => void child.send(command, () => {})),
      hear: Effect.gen(function*() {
        while (said.length === 0) {
          if (heard.gone) return yield* new Died({ output: heard.output })
          yield* Effect.sleep(10)
        }
        return said.shift()
      })
    })
  )

const isGlance = (value: unknown): value is Glance => typeof value === "object" && value !== null && "handles" in value

const isInventory = (value: unknown): value is Inventory => isGlance(value) && "heap" in value

/**
 * What may be more for a moment: the timer of a void mark, an answer being read, a stream that stays on a connection which
 * requests do not use any more. What leaks leaks with every pair or fault, and soon shows.
 */
const tolerance: Readonly<Record<string, number>> = {
  timers: 4,
  fibers: 3,
  handles: 2,
  sockets: 2,
  connections: 2,
  heap: 1_500_000
}

/** For each server: a connection for messages is there or not, according to whether a fiber had to wait since the last one broke. */
const toleranceByServer: Readonly<Record<string, number>> = {
  fibers: 2,
  handles: 1,
  sockets: 1,
  connections: 1,
  subscriptions: 1
}

/** What there is more of than before. */
const excess = (
  servers: number,
  before: Record<string, number>,
  after: Record<string, number>
): ReadonlyArray<string> =>
  Object.keys(before).flatMap((name) => {
    const [had = 0, has = 0] = [before[name], after[name]]
    const most = had + (tolerance[name] ?? 0) + servers * (toleranceByServer[name] ?? 0)
    return has > most ? [`${name}: ${has}, before ${had}`] : []
  })

const violation = (when: string) => (text: string): Violation => ({ law: "leak", text: `${text}, after ${when}` })

const harmOnce = (way: Way, random: Random): Effect.Effect<void> => {
  const road = random.pick(way)
  if (road === undefined) return Effect.void
  const kinds = [
    road.cut,
    road.dropNextReply,
    road.dropNextReply,
    road.refuse,
    road.blackhole("both"),
    road.blackhole("toClient"),
    road.drop("both"),
    road.delay(random.between(5, 50))
  ]
  return Effect.ensuring(
    Effect.andThen(random.pick(kinds) ?? Effect.void, Effect.sleep(random.between(10, 150))),
    road.pass
  ).pipe(Effect.andThen(Effect.sleep(random.between(10, 100))))
}

/** How long connections, sessions and parents may take to settle, in milliseconds. */
const longestSettle = 10_000
/** How long to wait for what can be seen at a glance before everything is counted. */
const longestGlances = 1500

interface Measured {
  readonly figures: LeakFigures | undefined
  readonly violations: ReadonlyArray<Violation>
}

/** Counts before, after so many pairs, and after so many faults. */
const measured = Effect.fnUntraced(function*(
  target: Target,
  pairs: number,
  faults: number,
  random: Random
): Effect.fn.Return<Measured, HarnessError | Died, Scope.Scope> {
  const way = yield* pave(target.servers)
  const { hear, tell } = yield* start({ connection: target.connection(way), ttl: 10_000 })
  yield* hear
  const connections = Effect.map(
    Effect.forEach(way, (road) => road.connections),
    (counts) => counts.reduce((sum, n) => sum + n, 0)
  )
  const take = Effect.gen(function*() {
    yield* tell({ do: "measure" })
    const own = yield* hear
    if (!isInventory(own)) return yield* new Died({ output: `said ${JSON.stringify(own)}` })
    return { ...own, connections: yield* connections, ...yield* target.watched }
  })
  /** To count everything is expensive; while the last requests are under way there are more timers at least. */
  const atRest = (before: Record<string, number>) =>
    Effect.gen(function*() {
      const until = now() + longestGlances
      while (now() < until) {
        yield* tell({ do: "glance" })
        const own = yield* hear
        if (!isGlance(own)) return yield* new Died({ output: `said ${JSON.stringify(own)}` })
        const seen: Record<string, number> = { ...own, connections: yield* connections }
        if (Object.entries(seen).every(([name, count]) => count <= (before[name] ?? 0))) return
        yield* Effect.sleep(100)
      }
    })
  const settled = (before: Record<string, number>) =>
    Effect.gen(function*() {
      const until = now() + longestSettle
      while (true) {
        yield* atRest(before)
        const after = yield* take
        if (excess(way.length, before, after).length === 0 || now() > until) return after
        yield* Effect.sleep(500)
      }
    })
  const work = (pairs: number) => Effect.andThen(tell({ do: "pairs", pairs }), hear)

  const suffer = Effect.fnUntraced(function*(faults: number) {
    yield* tell({ do: "suffer" })
    for (let i = 0; i < faults && way.length > 0; i++) yield* harmOnce(way, random)
    yield* tell({ do: "stop" })
    yield* hear
  })

  // What is made once is made: compiled code, connections, sessions, and the subscriptions of fibers that once had to wait.
  yield* work(100)
  yield* suffer(10)
  yield* work(800)
  yield* Effect.sleep(2500)
  const before = yield* take
  yield* work(pairs)
  const afterPairs = yield* settled(before)
  yield* suffer(faults)
  yield* work(200)
  const afterFaults = yield* settled(before)
  return {
    figures: { pairs, faults, before, afterPairs, afterFaults },
    violations: [
      ...excess(way.length, before, afterPairs).map(violation(`${pairs} pairs`)),
      ...excess(way.length, before, afterFaults).map(violation(`${faults} faults`))
    ]
  }
})

/** The same; a process that dies of it is a violation. */
export const measure = (
  target: Target,
  pairs: number,
  faults: number,
  random: Random
): Effect.Effect<Measured, HarnessError, Scope.Scope> =>
  Effect.catchTag(
    measured(target, pairs, faults, random),
    "Died",
    ({ output }) => Effect.succeed<Measured>({ figures: undefined, violations: [{ law: "crash", text: output }] })
  )
