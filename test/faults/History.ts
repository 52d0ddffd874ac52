/**
 * What happened in a run: what the workers wrote down, what was done to them, and what became of each attempt.
 */
import type { Interval } from "./Monotonic.ts"

/** How an attempt ended, as its caller sees it. */
export type Result = "released" | "lost" | "timeout" | "error" | "interrupted"

/** What a key is asked for. */
export type Role = "lock" | "leader" | "permits"

/** A line of a worker's log. Times are of the shared monotonic clock, in milliseconds; `a` is the attempt. */
export type Entry =
  | { readonly e: "ready", readonly t: number }
  /** It asks for a key, in the local line of one of its layers. */
  | {
    readonly e: "asked"
    readonly t: number
    readonly a: number
    readonly key: string
    readonly layer: number
    /** For what, where it is not for the lock; and how many permits. */
    readonly role?: Role | undefined
    readonly permits?: number | undefined
  }
  /** The first instruction under the lock. Leases of one owner are of one hold, which passed from each to the next. */
  | {
    readonly e: "held"
    readonly t: number
    readonly a: number
    readonly token: string
    readonly owner: string
    /** The first of its permits. */
    readonly permit?: number | undefined
  }
  /** It read the counter, */
  | { readonly e: "read", readonly t: number, readonly a: number, readonly n: number }
  /** and is about to write it, greater by one. */
  | { readonly e: "wrote", readonly t: number, readonly a: number, readonly n: number }
  /** The register refused its token. */
  | { readonly e: "refused", readonly t: number, readonly a: number }
  /** The last instruction under the lock. */
  | { readonly e: "left", readonly t: number, readonly a: number, readonly how: "done" | "interrupted" }
  | { readonly e: "ended", readonly t: number, readonly a: number, readonly result: Result, readonly detail?: string }
  /** The event loop did nothing. */
  | { readonly e: "stall", readonly from: number, readonly t: number }
  /** It is about to stop itself, or to kill itself. */
  | { readonly e: "stopping", readonly t: number }
  | { readonly e: "dying", readonly t: number }
  /** Everything is released, and its layer is closed. */
  | { readonly e: "bye", readonly t: number }

/** One attempt to hold a key. */
export interface Attempt {
  readonly worker: Worker
  readonly id: number
  readonly key: string
  readonly layer: number
  readonly role: Role
  readonly permits?: number | undefined
  readonly asked: number
  readonly held?: {
    readonly at: number
    readonly token: bigint
    readonly owner: string
    readonly permit?: number | undefined
  } | undefined
  readonly read?: number | undefined
  readonly wrote?: { readonly at: number, readonly n: number } | undefined
  readonly refused?: number | undefined
  readonly left?: { readonly at: number, readonly how: "done" | "interrupted" } | undefined
  readonly ended?: { readonly at: number, readonly result: Result, readonly detail?: string | undefined } | undefined
}

/** A process that takes locks. */
export interface Worker {
  readonly name: string
  /** Its place in the crew: the one that replaces it has the same place and the same roads. */
  readonly slot: number
  /** When it did nothing more: killed, or gone by itself. Infinite while it runs. */
  readonly gone: number
  /** It was asked to go, and went. */
  readonly saidBye: boolean
  /** When its event loop stood still; those that nearly touch are one. */
  readonly stalls: ReadonlyArray<Interval>
}

/** Something that was done to the system. */
export interface Fault extends Interval {
  readonly name: string
  readonly kind: "process" | "network" | "server"
  /** The place of the worker that it concerns; absent where it concerns all of them. */
  readonly slot?: number | undefined
  /** For how long it may be felt after it is over, in milliseconds, where that is known. */
  readonly aftermath?: number | undefined
  /**
   * The backend does not promise to remember locks over this: at all, or for those whose road was closed, so that they could
   * not hear of it.
   */
  readonly forgets?: "always" | "unheard" | undefined
}

/** A write that the register took. */
export interface Write {
  readonly at: number
  readonly key: string
  readonly token: bigint
}

/** A write to the ledger, in a transaction that was fenced and committed. */
export interface Written {
  readonly id: bigint
  readonly key: string
  readonly owner: string
  readonly token: bigint
  /** The last write to the key that it could see. */
  readonly seen: bigint
}

/** Everything that the checker judges. */
export interface History {
  readonly attempts: ReadonlyArray<Attempt>
  readonly workers: ReadonlyArray<Worker>
  readonly faults: ReadonlyArray<Fault>
  /** In the order in which the register took them. */
  readonly register: ReadonlyArray<Write>
  /** In the order of their tokens; none where nothing is fenced. */
  readonly ledger: ReadonlyArray<Written>
}

/** Stalls with less between them are one: a loop that wakes up has much to do. */
const pause = 40

/** Joins what overlaps or nearly touches. */
export const merge = (intervals: ReadonlyArray<Interval>): ReadonlyArray<Interval> => {
  const merged: Array<{ from: number, to: number }> = []
  for (const { from, to } of intervals.toSorted((a, b) => a.from - b.from)) {
    const last = merged.at(-1)
    if (last !== undefined && from <= last.to + pause) last.to = Math.max(last.to, to)
    else merged.push({ from, to })
  }
  return merged
}

/**
 * The attempts that were the first to work under their hold. The others were passed the key by the one before them, and
 * the server knows nothing of it.
 */
export const firstLeases = (attempts: ReadonlyArray<Attempt>): ReadonlySet<Attempt> => {
  const first = new Map<string, Attempt>()
  for (const attempt of attempts) {
    if (attempt.held === undefined) continue
    const before = first.get(attempt.held.owner)?.held
    if (before === undefined || attempt.held.at < before.at) first.set(attempt.held.owner, attempt)
  }
  return new Set(first.values())
}

/** The lines of a log; one that was cut short by a kill is left out. */
export const parse = (log: string): ReadonlyArray<Entry> =>
  log.split("\n").slice(0, -1).map((line): Entry => JSON.parse(line))

type Draft = { -readonly [K in keyof Attempt]: Attempt[K] }

/** What a worker did, out of its log and of when it was killed, if it was. */
export const assemble = (
  source: { readonly name: string, readonly slot: number, readonly killed?: number | undefined },
  log: ReadonlyArray<Entry>
): { readonly worker: Worker, readonly attempts: ReadonlyArray<Attempt> } => {
  const last = log.at(-1)
  const suicide = log.find((entry) => entry.e === "dying")?.t
  const saidBye = log.some((entry) => entry.e === "bye")
  const killed = suicide ?? source.killed
  const gone = saidBye ? last?.t : killed === undefined ? undefined : Math.max(killed, last?.t ?? 0)
  const stalls = log.flatMap((entry, i): ReadonlyArray<Interval> => {
    if (entry.e === "stall") return [{ from: entry.from, to: entry.t }]
    // It may have been killed before it could tell how long it stood still.
    if (entry.e === "stopping") return [{ from: entry.t, to: log[i + 1]?.t ?? gone ?? Number.POSITIVE_INFINITY }]
    return []
  })
  const worker: Worker = {
    name: source.name,
    slot: source.slot,
    gone: gone ?? Number.POSITIVE_INFINITY,
    saidBye,
    stalls: merge(stalls)
  }
  const attempts = new Map<number, Draft>()
  for (const entry of log) {
    if (!("a" in entry)) continue
    if (entry.e === "asked") {
      const { a, key, layer, permits, role = "lock", t } = entry
      attempts.set(a, { worker, id: a, key, layer, role, permits, asked: t })
      continue
    }
    const attempt = attempts.get(entry.a)
    if (attempt === undefined) continue
    if (entry.e === "held") {
      const { owner, permit, t, token } = entry
      attempt.held = { at: t, token: BigInt(token), owner, permit }
    } else if (entry.e === "read") attempt.read = entry.n
    else if (entry.e === "wrote") attempt.wrote = { at: entry.t, n: entry.n }
    else if (entry.e === "refused") attempt.refused = entry.t
    else if (entry.e === "left") attempt.left = { at: entry.t, how: entry.how }
    else attempt.ended = { at: entry.t, result: entry.result, detail: entry.detail }
  }
  return { worker, attempts: [...attempts.values()] }
}
