/**
 * One run: servers, workers, faults, a time to heal, and the judgement.
 */
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import type { HarnessError } from "../harness/HarnessError.ts"
import type { Figures } from "./Checker.ts"
import { check } from "./Checker.ts"
import type { Violation } from "./checks/Promises.ts"
import { longestWait } from "./checks/Waits.ts"
import * as Crews from "./Crew.ts"
import { type Fault, type History, merge } from "./History.ts"
import { type Interval, now, watchStalls } from "./Monotonic.ts"
import { rage } from "./Nemesis.ts"
import * as Random from "./Random.ts"
import { pave, type Target } from "./Target.ts"
import { type TargetName, targets } from "./targets.ts"

/** What came of a run. */
export interface Outcome {
  readonly target: TargetName
  readonly seed: number
  readonly seconds: number
  readonly figures: Figures
  /** How often each was done. */
  readonly faults: Readonly<Record<string, number>>
  readonly violations: ReadonlyArray<Violation>
  /** Where the logs are, if something was broken. */
  readonly kept?: string | undefined
}

const workers = 3
const fibers = 3
const keys = ["a", "b"]
const longKey = "long"
/** Before the first fault, and after the last: then the order of the line can be judged. */
const calm = 1500

/** A folder that is removed with the scope. */
const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "dlock-faults-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
)

/** Where reports go; git ignores it. */
export const cache = fileURLToPath(new URL("../../.cache/faults", import.meta.url))

/** What was written down in a run that broke something is kept. */
const keep = (from: string, outcome: Outcome, faults: ReadonlyArray<Fault>): Effect.Effect<Outcome> =>
  Effect.sync(() => {
    const kept = Path.join(cache, `${outcome.target}-${outcome.seed}-${process.pid}`)
    Fs.cpSync(from, kept, { recursive: true })
    Fs.writeFileSync(Path.join(kept, "faults.json"), JSON.stringify(faults, undefined, 2))
    return { ...outcome, kept }
  })

/** The roads and the register are ours: while we stand still, everybody is cut off. */
const ownStalls = Effect.acquireRelease(
  Effect.sync(() => {
    const stalls: Array<Interval> = []
    return { stalls, stop: watchStalls((stall) => stalls.push(stall)) }
  }),
  ({ stop }) => Effect.sync(stop)
)

const longestStart = 60_000

/** Waits until it is so; answers whether it became so in time. */
const eventually = (condition: () => boolean, limit: number): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const until = now() + limit
    while (!condition() && now() < until) yield* Effect.sleep(50)
    return condition()
  })

/** What dead processes left ends by itself in time. */
const leftovers = Effect.fnUntraced(function*({ promises, residue }: Target) {
  const until = now() + longestWait(promises) + 10_000
  while (true) {
    const left = yield* residue([...keys, longKey])
    if (left.length === 0 || now() > until) return left
    yield* Effect.sleep(250)
  }
})

const count = (faults: ReadonlyArray<Fault>): Record<string, number> =>
  Object.fromEntries([...Map.groupBy(faults, ({ name }) => name)].map(([name, all]) => [name, all.length]))

/** Runs faults against one backend for so many seconds. */
export const run = Effect.fnUntraced(function*(
  name: TargetName,
  seed: number,
  seconds: number
): Effect.fn.Return<Outcome, HarnessError> {
  return yield* Effect.scoped(Effect.gen(function*() {
    const target = yield* targets[name]
    const { promises } = target
    const slots = target.workers ?? workers
    const ways = yield* Effect.forEach(Array.from({ length: slots }), () => pave(target.servers))
    const { stalls } = yield* ownStalls
    const directory = yield* folder
    const crew = yield* Crews.make(slots, directory, (slot, generation) => ({
      connection: target.connection(ways[slot] ?? []),
      layers: target.layers ?? 1,
      ttl: promises.ttl,
      seed: Random.seedOf(seed, `${name} ${slot}.${generation}`),
      keys,
      longKey,
      fibers
    }))
    const started = yield* eventually(crew.areReady, longestStart)
    yield* Effect.sleep(calm)
    const random = Random.make(Random.seedOf(seed, name))
    const faults = yield* rage({ target, crew, ways, random }, seconds * 1000)
    const healed = now()
    yield* Effect.sleep(calm)
    yield* crew.quit(2 * longestWait(promises))
    const history: History = {
      ...crew.record(),
      faults: [
        ...faults,
        ...merge(stalls).map((stall): Fault => ({ ...stall, name: "the run stood still", kind: "network" }))
      ],
      register: crew.register,
      healed,
      end: now()
    }
    const { figures, violations } = check(history, promises)
    const left = yield* leftovers(target)
    const outcome: Outcome = {
      target: name,
      seed,
      seconds,
      figures: { ...figures, faults: faults.length },
      faults: count(faults),
      violations: [
        ...violations,
        ...left.map((text): Violation => ({ law: "residue", text })),
        ...crew.crashes().map((text): Violation => ({ law: "crash", text })),
        ...nothingHappened(started, figures)
      ]
    }
    return outcome.violations.length === 0 ? outcome : yield* keep(directory, outcome, history.faults)
  }))
})

/** A run that tested nothing is no success. */
const nothingHappened = (started: boolean, { grants }: Figures): ReadonlyArray<Violation> => [
  ...(started ? [] : [{ law: "nothing happened", text: "the workers did not start" } as const]),
  ...(grants > 0 ? [] : [{ law: "nothing happened", text: "no key was ever granted" } as const])
]
