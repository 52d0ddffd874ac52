/**
 * At most so many permits are in use at a time. A process that stands still, or that cannot have heard that its permit is
 * gone, may believe to use one more, as the holder of a lock may.
 */
import type { History } from "../History.ts"
import type { Belief, Promises, Violation } from "./Promises.ts"
import { beliefs, describe, hadJustHeard, mayBeForgotten, stoodStill } from "./Promises.ts"

const isExcused = (history: History, promises: Promises, belief: Belief, at: number): boolean =>
  stoodStill(belief.attempt, at, belief.to) || mayBeForgotten(history, promises, belief, at) ||
  hadJustHeard(history, promises, belief, at)

const weightOf = ({ attempt }: Belief): number => attempt.permits ?? 0

/** `history` has attempts to use permits only. */
export const check = (history: History, promises: Promises, limit: number): ReadonlyArray<Violation> => {
  const violations: Array<Violation> = []
  for (const [key, list] of beliefs(history)) {
    const byTime = list.toSorted((a, b) => a.from - b.from)
    for (const [i, newest] of byTime.entries()) {
      // It stopped between its last look at the clock and the first step of its work.
      if (stoodStill(newest.attempt, newest.from, newest.to)) continue
      const before = byTime.slice(0, i).filter(({ to }) => to > newest.from)
      const using = [newest, ...before.filter((older) => !isExcused(history, promises, older, newest.from))]
      const inUse = using.reduce((sum, belief) => sum + weightOf(belief), 0)
      if (inUse <= limit) continue
      violations.push({
        law: "limit",
        text: `${key}: ${inUse} of ${limit} permits in use by ${using.map(describe).join(", ")}`
      })
    }
  }
  return violations
}
