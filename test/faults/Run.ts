/**
 * One run: servers, workers, faults, a time to heal, and the judgement.
 */
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import type { HarnessError } from "../harness/HarnessError.ts"
import type { Server } from "../harness/Server.ts"
import type { Figures } from "./Checker.ts"
import { check } from "./Checker.ts"
import type { Violation } from "./checks/Promises.ts"
import { longestWait } from "./checks/Waits.ts"
import * as Crews from "./Crew.ts"
import { type Fault, type History, merge } from "./History.ts"
import * as Leaks from "./Leaks.ts"
import type { LeakFigures } from "./Leaks.ts"
import { type Interval, now, watchStalls } from "./Monotonic.ts"
import { drill, rage } from "./Nemesis.ts"
import * as Random from "./Random.ts"
import { replyTo, verbs } from "./roadFaults.ts"
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
  /** What a process had before and after. */
  readonly leaks: LeakFigures | undefined
  /** Where the logs are, if something was broken. */
  readonly kept?: string | undefined
}

const workers = 3
const fibers = 3
const keys = ["a", "b"]
const longKey = "long"
const rareKey = "rare"
const leaderKey = "leader"
const permitsKey = "permits"
const limit = 3
/** What may be left of the locks that are used. */
const allKeys = [
  ...keys,
  longKey,
  rareKey,
  leaderKey,
  `${permitsKey}#permits`,
  ...Array.from({ length: limit + 1 }, (_, i) => `${permitsKey}#permit-${i}`)
]
/** Before the first fault, and after the last: then the order of the line can be judged, and how long it takes. */
const calm = 2500
/** How much longer a run may take on a busy machine. */
const longestUntilHappened = 60_000

/** A folder that is removed with the scope. */
const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "dlock-faults-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
)

/** Where reports go; git ignores it. */
export const cache = fileURLToPath(new URL("../../.cache/faults", import.meta.url))

/** What was written down in a run that broke something is kept. */
const keep = (from: string, name: string, faults: ReadonlyArray<Fault>): Effect.Effect<string> =>
  Effect.sync(() => {
    const kept = Path.join(cache, `${name}-${process.pid}`)
    Fs.cpSync(from, kept, { recursive: true })
    Fs.writeFileSync(Path.join(kept, "faults.json"), JSON.stringify(faults, undefined, 2))
    return kept
  })

/** The roads and the register are ours: while this process stands still, every worker is cut off. */
const ownStalls = Effect.acquireRelease(
  Effect.sync(() => {
    const stalls: Array<Interval> = []
    return { stalls, stop: watchStalls((stall) => stalls.push(stall)) }
  }),
  ({ stop }) => Effect.sync(stop)
)

/** A probe is a connection of its own, for which some servers start a process. */
const probeMillis = 100
/** An answer that takes longer was not held up by the probe itself. */
const slowAnswer = 100

/** Servers that stand still while they are not told to: a busy machine, or a slow disk. */
const serverStalls = Effect.fnUntraced(function*(servers: ReadonlyArray<Server>) {
  const stalls: Array<Interval> = []
  const look = Effect.fnUntraced(function*({ probe }: Server) {
    const from = now()
    yield* Effect.ignore(probe)
    const to = now()
    if (to - from > slowAnswer) stalls.push({ from, to })
    yield* Effect.sleep(probeMillis)
  })
  yield* Effect.forkScoped(
    Effect.forEach(servers, (server) => Effect.forever(look(server)), { concurrency: "unbounded", discard: true })
  )
  return stalls
})

const longestStart = 180_000

/** Waits until it is so; answers whether it became so in time. */
const eventually = (condition: () => boolean, limit: number, every = 50): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const until = now() + limit
    while (now() < until) {
      if (condition()) return true
      yield* Effect.sleep(every)
    }
    return condition()
  })

/** What dead processes left ends by itself in time. */
const leftovers = Effect.fnUntraced(function*({ promises, residue }: Target) {
  const until = now() + longestWait(promises) + 10_000
  while (true) {
    const left = yield* residue(allKeys)
    if (left.length === 0 || now() > until) return left
    yield* Effect.sleep(250)
  }
})

const count = (faults: ReadonlyArray<Fault>): Record<string, number> =>
  Object.fromEntries([...Map.groupBy(faults, ({ name }) => name)].map(([name, all]) => [name, all.length]))

/** How much is done. */
export interface Plan {
  readonly seed: number
  readonly seconds: number
  /** Acquire/release pairs, and faults, after which a process has no more than before. Zero pairs: not looked at. */
  readonly pairs: number
  readonly leakFaults: number
}

/** Stalls that are not part of the plan. */
const stoodStill = (
  name: string,
  kind: Fault["kind"],
  stalls: ReadonlyArray<Interval>,
  ttl: number
): ReadonlyArray<Fault> =>
  merge(stalls).map((stall) => ({
    ...stall,
    name,
    kind,
    ...(stall.to - stall.from < ttl / 4 && { aftermath: 0 })
  }))

/** Runs faults against the servers of a target for so long, and judges what happened. */
const harm = Effect.fnUntraced(function*(name: TargetName, target: Target, { seed, seconds }: Plan) {
  const { promises } = target
  const slots = target.workers ?? workers
  const ways = yield* Effect.forEach(Array.from({ length: slots }), () => pave(target.servers))
  const { stalls } = yield* ownStalls
  const slowServers = yield* serverStalls(target.servers)
  const directory = yield* folder
  const crew = yield* Crews.make(slots, directory, (slot, generation) => ({
    connection: target.connection(ways[slot] ?? []),
    layers: target.layers ?? 1,
    ttl: promises.ttl,
    seed: Random.seedOf(seed, `${name} ${slot}.${generation}`),
    keys,
    longKey,
    rareKey,
    leaderKey,
    permitsKey,
    limit,
    fibers
  }))
  const started = yield* eventually(crew.areReady, longestStart)
  yield* Effect.sleep(calm)
  const world = { target, crew, ways, random: Random.make(Random.seedOf(seed, name)) }
  const faults = [...yield* drill(world), ...yield* rage(world, seconds * 1000)]
  yield* Effect.sleep(calm)
  // A busy machine needs longer until everything has happened once that is to be judged.
  const soFar = () =>
    check({ ...crew.record(), faults: [], register: crew.register, ledger: [] }, promises, limit).figures
  yield* eventually(
    () => nothingHappened({ ...target, ledger: undefined }, started, soFar()).length === 0,
    longestUntilHappened,
    calm
  )
  yield* crew.quit(2 * longestWait(promises))
  const history: History = {
    ...crew.record(),
    faults: [
      ...faults,
      ...stoodStill("the run stood still", "network", stalls, promises.ttl),
      ...stoodStill("a server was slow", "server", slowServers, promises.ttl)
    ],
    register: crew.register,
    ledger: yield* target.ledger ?? Effect.succeed([])
  }
  const { figures, violations } = check(history, promises, limit)
  const left = yield* leftovers(target)
  const all: ReadonlyArray<Violation> = [
    ...violations,
    ...left.map((text): Violation => ({ law: "residue", text })),
    ...crew.crashes().map((text): Violation => ({ law: "crash", text })),
    ...nothingHappened(target, started, figures),
    ...notDealt(target, count(faults))
  ]
  const kept = all.length === 0 ? undefined : yield* keep(directory, `${name}-${seed}`, history.faults)
  return { figures: { ...figures, faults: faults.length }, faults: count(faults), violations: all, kept }
}, Effect.scoped)

/** Runs everything against one backend. */
export const run = Effect.fnUntraced(function*(name: TargetName, plan: Plan): Effect.fn.Return<Outcome, HarnessError> {
  return yield* Effect.scoped(Effect.gen(function*() {
    const target = yield* targets[name]
    const harmed = yield* harm(name, target, plan)
    const random = Random.make(Random.seedOf(plan.seed, `${name} leaks`))
    const leaks = plan.pairs === 0
      ? { figures: undefined, violations: [] }
      : yield* Leaks.measure(target, plan.pairs, plan.leakFaults, random)
    return {
      target: name,
      seed: plan.seed,
      seconds: plan.seconds,
      ...harmed,
      violations: [...harmed.violations, ...leaks.violations],
      leaks: leaks.figures
    }
  }))
})

/** A run that tested nothing is no success. */
const nothingHappened = (
  target: Target,
  started: boolean,
  { grants, passes, permits, terms, writes }: Figures
): ReadonlyArray<Violation> => {
  const texts = [
    ...(started ? [] : ["the workers did not start"]),
    ...(grants > 0 ? [] : ["no key was ever granted"]),
    ...(permits > 0 ? [] : ["no permit was ever used"]),
    ...(terms > 0 ? [] : ["there was never a leader"]),
    ...(passes > 0 || !target.passes ? [] : ["no hold was ever passed"]),
    ...(writes > 0 || target.ledger === undefined ? [] : ["nothing was ever written in a fenced transaction"])
  ]
  return texts.map((text) => ({ law: "nothing happened", text }))
}

/** The reply to each verb is dropped in every run. */
const notDealt = ({ servers }: Target, faults: Readonly<Record<string, number>>): ReadonlyArray<Violation> =>
  servers.length === 0 ? [] : verbs.flatMap((verb) =>
    faults[replyTo(verb)] === undefined
      ? [{ law: "nothing happened", text: `no fault was "${replyTo(verb)}"` } as const]
      : []
  )
