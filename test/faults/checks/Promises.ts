/**
 * What a backend promises, and what excuses a history that looks as if it had not been kept.
 */
import type { Attempt, Fault, History } from "../History.ts"
import type { Interval } from "../Monotonic.ts"

/** Of a backend. Times in milliseconds. */
export interface Promises {
  readonly ttl: number
  /** How much later than the ttl the server may free the key of a dead holder. */
  readonly granularity: number
  /** How long a waiter that died may hold up those behind it. */
  readonly deadWaiter: number
  readonly commandTimeout: number
  /** A lock goes with its connection, at once. */
  readonly goesWithConnection: boolean
  /** The longest wait for a free key while nothing is disturbed. */
  readonly prompt: number
  /** First come, first served, in turns. */
  readonly fifo: boolean
  /** For how long from its grant a process may pass its hold on to its own line. */
  readonly turn: number
}

/** A promise that was broken. */
export interface Violation {
  readonly law:
    | "exclusion"
    | "limit"
    | "unreported loss"
    | "lost update"
    | "token order"
    | "register order"
    | "register refused a holder"
    | "write order"
    | "stuck"
    | "slow"
    | "starved"
    | "first come, first served"
    | "turn"
    | "residue"
    | "leak"
    | "crash"
    | "nothing happened"
  readonly text: string
}

/** How long a process that thaws needs until it has read its clock and interrupted what it ran. */
export const thaw = 60

const never = Number.POSITIVE_INFINITY

/** A held attempt, with the span in which it believed to hold its key. */
export interface Belief {
  readonly attempt: Attempt
  readonly token: bigint
  readonly from: number
  readonly to: number
}

/** The beliefs of each key, the oldest grant first. */
export const beliefs = ({ attempts }: History): ReadonlyMap<string, ReadonlyArray<Belief>> => {
  const byKey = new Map<string, Array<Belief>>()
  for (const attempt of attempts) {
    if (attempt.held === undefined) continue
    const { at, token } = attempt.held
    const belief = { attempt, token, from: at, to: attempt.left?.at ?? attempt.worker.gone }
    byKey.set(attempt.key, [...byKey.get(attempt.key) ?? [], belief])
  }
  for (const [key, list] of byKey) {
    byKey.set(key, list.toSorted((a, b) => a.token < b.token ? -1 : a.token > b.token ? 1 : a.from - b.from))
  }
  return byKey
}

/** Whether its process stood still from `since` or before, until `until` or just before. */
export const stoodStill = ({ worker }: Attempt, since: number, until: number): boolean =>
  worker.stalls.some(({ from, to }) => from <= since && until <= to + thaw)

const overlaps = (a: { from: number, to: number }, from: number, to: number): boolean => a.from <= to && from <= a.to

/** Whether a fault concerns this place in the crew. */
export const concerns = (fault: Fault, slot: number): boolean => fault.slot === undefined || fault.slot === slot

/** Whether the server may have forgotten `older` when it gave the key to another at `at`. */
export const mayBeForgotten = (history: History, promises: Promises, older: Belief, at: number): boolean =>
  history.faults.some((fault) => {
    if (fault.forgets === undefined || !overlaps(fault, older.from - promises.ttl, at)) return false
    if (older.from > fault.to || older.to > fault.to + promises.ttl * 1.1 + thaw) return false
    if (fault.forgets === "always") return true
    const { slot, stalls } = older.attempt.worker
    const deaf = history.faults.filter((other) => other.kind === "network" && concerns(other, slot))
    return [...deaf, ...stalls].some((silence) => overlaps(silence, fault.from, at))
  })

/**
 * Whether the connection of `older` had just been broken when another got the key, and its process heard of it as
 * soon as a process can: the server frees the lock when it sees the end of the connection, at the same time as the client.
 */
export const hadJustHeard = (history: History, promises: Promises, older: Belief, at: number): boolean =>
  promises.goesWithConnection && older.attempt.ended?.result === "lost" && older.to - at <= thaw &&
  history.faults.some((fault) =>
    fault.kind !== "process" && concerns(fault, older.attempt.worker.slot) && overlaps(fault, at - thaw, older.to)
  )

/** For people. */
export const describe = ({ attempt, from, to, token }: Belief): string =>
  `${attempt.worker.name}#${attempt.id} (token ${token}, ${from.toFixed(1)} to ${to.toFixed(1)}, ${
    attempt.ended?.result ?? "never ended"
  })`

/** For how long a fault may be felt after it is over, where it does not say so itself. */
const aftermath = 6000

/** A stall that is shorter is felt only while it lasts. */
const harmless = (ttl: number): number => ttl / 4

/** When something was broken or stood still, with the time over which that may be felt. */
export const disturbances = ({ faults, workers }: History, { ttl }: Promises): ReadonlyArray<Interval> => [
  ...faults.map((fault) => ({ from: fault.from, to: fault.to + (fault.aftermath ?? aftermath) })),
  ...workers.flatMap(({ gone, saidBye }) => saidBye || gone === never ? [] : [{ from: gone, to: gone + aftermath }]),
  ...workers.flatMap(({ stalls }) =>
    stalls.map(({ from, to }) => ({ from, to: to - from < harmless(ttl) ? to : to + aftermath }))
  )
]
