/**
 * Laws 4, 5, 8 and 10: a key that is not held is not waited for longer than a dead holder and a dead waiter may cost, once
 * the faults that concern the waiter are over; hardly at all where no process died and nothing was disturbed; and no wait
 * is without end.
 */
import { type Attempt, firstLeases, type History } from "../History.ts"
import type { Interval } from "../Monotonic.ts"
import type { Belief, Promises, Violation } from "./Promises.ts"
import { beliefs, concerns, describe, disturbances } from "./Promises.ts"

/** What connecting again, looking again, and a busy machine may take. */
const slack = 6000

/**
 * Those in front may each have died or been cut off: one that held, and one to whom the key was given without its
 * knowledge.
 */
export const longestWait = ({ commandTimeout, deadWaiter, granularity, ttl }: Promises): number =>
  2 * (ttl + granularity) + deadWaiter + 2 * commandTimeout + slack

/** When the last fault was over that concerned this attempt and began before `at`. */
const calmSince = (history: History, { worker }: Attempt, at: number): number =>
  Math.max(
    0,
    ...history.faults.filter((fault) => fault.from < at && concerns(fault, worker.slot)).map(({ to }) =>
      Math.min(to, at)
    ),
    ...worker.stalls.filter(({ from }) => from < at).map(({ to }) => Math.min(to, at))
  )

/** Until when `belief` kept the key from others before `at`, as far as a standing process believes anything. */
const heldUntil = ({ attempt, from, to }: Belief, at: number): number => {
  if (to <= at) return to
  const still = attempt.worker.stalls.find((stall) => stall.from <= at && to >= stall.from && at <= stall.to)
  return still === undefined ? at : Math.max(still.from, from)
}

/** Each belief with the time until which those before it held the key. */
const afterOthers = (list: ReadonlyArray<Belief>): ReadonlyArray<readonly [Belief, number]> => {
  const byTime = list.toSorted((a, b) => a.from - b.from)
  let lastTo = 0
  return byTime.map((belief, i) => {
    const at = belief.from
    const free = lastTo <= at ? lastTo : Math.max(0, ...byTime.slice(0, i).map((other) => heldUntil(other, at)))
    lastTo = Math.max(lastTo, belief.to)
    return [belief, free] as const
  })
}

/** The longest part of a span in which nothing was disturbed. */
const longestCalm = (disturbed: ReadonlyArray<Interval>, { from, to }: Interval): number => {
  let [calm, longest] = [from, 0]
  for (const one of disturbed) {
    if (one.to <= calm || one.from >= to) continue
    longest = Math.max(longest, one.from - calm)
    calm = one.to
  }
  return Math.max(longest, to - calm)
}

interface Found {
  readonly violations: ReadonlyArray<Violation>
  readonly longestGap: number
}

export const check = (history: History, promises: Promises): Found => {
  const violations: Array<Violation> = []
  const limit = longestWait(promises)
  const disturbed = disturbances(history, promises).toSorted((a, b) => a.from - b.from)
  let longestGap = 0

  for (const [key, list] of beliefs(history)) {
    for (const [belief, free] of afterOthers(list)) {
      const { attempt, from } = belief
      const since = Math.max(attempt.asked, free)
      longestGap = Math.max(longestGap, from - since)
      const calm = longestCalm(disturbed, { from: since, to: from })
      if (calm > promises.prompt) {
        violations.push({
          law: "slow",
          text: `${key}: free for ${calm.toFixed(0)} ms with nothing disturbed, before ${describe(belief)}`
        })
      }
      if (from - since <= limit) continue
      const gap = from - Math.max(since, calmSince(history, attempt, from))
      if (gap > limit) {
        violations.push({ law: "stuck", text: `${key}: free for ${gap.toFixed(0)} ms before ${describe(belief)}` })
      }
    }
  }

  const holds = firstLeases(history.attempts)
  const processes = new Set(history.workers.map(({ slot }) => slot)).size
  for (const attempt of history.attempts) {
    const { asked, held, key, worker } = attempt
    if (held === undefined || !promises.fifo) continue
    if (held.at - asked <= 2 * limit) continue
    const since = Math.max(asked, calmSince(history, attempt, held.at))
    if (held.at - since <= 2 * limit) continue
    const others = history.attempts.filter((other) =>
      holds.has(other) && other.key === key && other.worker !== worker && other.held !== undefined &&
      other.held.at > since + limit && other.held.at < held.at
    )
    if (others.length > 2 * processes) {
      violations.push({ law: "starved", text: `${nameOf(attempt)} saw ${others.length} others go first` })
    }
  }
  return { violations, longestGap }
}

const nameOf = ({ asked, id, key, worker }: Attempt): string =>
  `${worker.name}#${id} (${key}, asked at ${asked.toFixed(1)})`

/** Whatever is asked for is answered, and a worker that is asked to end does. */
export const endless = ({ attempts, workers }: History): ReadonlyArray<Violation> => [
  ...attempts.filter(({ ended, held, worker }) =>
    held === undefined && ended === undefined && worker.gone === Number.POSITIVE_INFINITY
  ).map((attempt): Violation => ({ law: "stuck", text: `${nameOf(attempt)} waits for ever` })),
  ...workers.filter(({ gone }) => gone === Number.POSITIVE_INFINITY).map(({ name }): Violation => ({
    law: "stuck",
    text: `${name} was asked to end, and did not`
  }))
]
