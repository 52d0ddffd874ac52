/**
 * Law 1: two never believe to hold a key at once, except for a process that stands still, and then never for longer
 * than it does; or for the moment in which a client hears that its connection is gone, where the lock goes with it. And
 * a holder that lost its key is told.
 */
import type { History } from "../History.ts"
import type { Belief, Promises, Violation } from "./Promises.ts"
import { beliefs, describe, hadJustHeard, mayBeForgotten, stoodStill } from "./Promises.ts"

interface Found {
  readonly violations: ReadonlyArray<Violation>
  readonly frozen: number
  readonly forgotten: number
  readonly unheard: number
}

export const check = (history: History, promises: Promises): Found => {
  const violations: Array<Violation> = []
  const frozen = new Set<Belief>()
  const forgotten = new Set<Belief>()
  const unheard = new Set<Belief>()

  const judge = (key: string, older: Belief, newer: Belief): void => {
    const since = Math.max(older.from, newer.from)
    const text = `${key}: ${describe(older)} and ${describe(newer)}`
    const wasFrozen = stoodStill(older.attempt, since, older.to)
    const wasForgotten = mayBeForgotten(history, promises, older, newer.from)
    const wasUnheard = hadJustHeard(history, promises, older, newer.from)
    const isExcused = wasFrozen || wasForgotten || wasUnheard
    if (older.token === newer.token || !isExcused) violations.push({ law: "exclusion", text })
    else if (wasFrozen) frozen.add(older)
    else if (wasUnheard) unheard.add(older)
    else forgotten.add(older)
    // What the server has forgotten it cannot tell of.
    const told = older.attempt.ended?.result !== "released"
    if (!told && !wasForgotten) violations.push({ law: "unreported loss", text })
  }

  for (const [key, list] of beliefs(history)) {
    const byTime = list.toSorted((a, b) => a.from - b.from)
    for (const [i, one] of byTime.entries()) {
      for (let j = i + 1; j < byTime.length; j++) {
        const other = byTime[j]
        if (other === undefined || other.from >= one.to) break
        if (one.token <= other.token) judge(key, one, other)
        else judge(key, other, one)
      }
    }
    violations.push(...lostUpdates(history, promises, key, list))
  }
  return { violations, frozen: frozen.size, forgotten: forgotten.size, unheard: unheard.size }
}

/** The counter is read and written under the lock only, so a success never undoes a success. */
const lostUpdates = (
  history: History,
  promises: Promises,
  key: string,
  list: ReadonlyArray<Belief>
): ReadonlyArray<Violation> => {
  const violations: Array<Violation> = []
  const writes = list.flatMap((belief) => {
    const { ended, read, wrote } = belief.attempt
    if (read === undefined || wrote === undefined) return []
    return [{ belief, read, at: wrote.at, n: wrote.n, succeeded: ended?.result === "released" }]
  }).toSorted((a, b) => a.at - b.at)
  for (const [i, write] of writes.entries()) {
    const before = writes[i - 1]
    if (before === undefined || before.n === write.read) continue
    // What was counted by two at once, each with a right to it, may be wrong from there on.
    const wereTwo = [before, write].some(({ belief }) => mayBeForgotten(history, promises, belief, write.at))
    if (before.succeeded && write.succeeded && !wereTwo) {
      violations.push({
        law: "lost update",
        text: `${key}: ${describe(write.belief)} read ${write.read} after ${describe(before.belief)} wrote ${before.n}`
      })
    }
  }
  return violations
}
