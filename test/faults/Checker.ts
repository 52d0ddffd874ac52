/**
 * Judges a history by what the backend promises. Nothing here asks a clock or a server.
 */
import * as Exclusion from "./checks/Exclusion.ts"
import * as Fencing from "./checks/Fencing.ts"
import * as Limit from "./checks/Limit.ts"
import * as Line from "./checks/Line.ts"
import type { Promises, Violation } from "./checks/Promises.ts"
import * as Waits from "./checks/Waits.ts"
import { type Attempt, firstLeases, type History, type Role } from "./History.ts"

/** What a run came to. */
export interface Verdict {
  readonly violations: ReadonlyArray<Violation>
  readonly figures: Figures
}

/** Counts of a run, for people. Times in milliseconds. */
export interface Figures {
  readonly faults: number
  /** Sections that ran under a lock, */
  readonly grants: number
  /** and how many of these were passed the key by another of their process, without a request to the server. */
  readonly passes: number
  /** Terms of leaders, and uses of permits, among the sections. */
  readonly terms: number
  readonly permits: number
  /** Losses that were reported, */
  readonly losses: number
  /** and grants of workers that died under them. */
  readonly deaths: number
  /** Writes in fenced transactions, */
  readonly writes: number
  /** and those that were refused, or given up, because the lease was lost by then. */
  readonly unwritten: number
  /** Two sections that believed to hold a key at once, and nothing excuses it. */
  readonly overlaps: number
  /** Two at once because one stood still, never longer than it stood still. */
  readonly frozen: number
  /** Two at once because the server lost its memory in a way for which it promises nothing. */
  readonly forgotten: number
  /** Two at once for the moment in which the first heard that its connection, and so its lock, was gone. */
  readonly unheard: number
  readonly stuck: number
  /** The longest wait for a key that was not held, faults included. */
  readonly longestGap: number
}

const heldOf = ({ attempts }: History): ReadonlyArray<Attempt> => attempts.filter(({ held }) => held !== undefined)

/** Each permit is a lock; of several the first one is known. */
const byPermit = (attempt: Attempt): Attempt =>
  attempt.role === "permits" ? { ...attempt, key: `${attempt.key} ${attempt.held?.permit}` } : attempt

/** Checks everything. */
export const check = (history: History, promises: Promises, limit: number): Verdict => {
  const ofRole = (role: Role): History => ({ ...history, attempts: history.attempts.filter((a) => a.role === role) })
  const [locks, permits] = [ofRole("lock"), ofRole("permits")]
  const exclusive = { ...history, attempts: history.attempts.map(byPermit) }
  const exclusion = Exclusion.check(exclusive, promises)
  const waits = Waits.check(locks, promises)
  const violations = [
    ...exclusion.violations,
    ...Limit.check(permits, promises, limit),
    ...Fencing.check(exclusive, promises),
    ...waits.violations,
    ...Waits.endless(history),
    ...Line.check(locks, promises)
  ]
  return {
    violations,
    figures: {
      faults: history.faults.length,
      grants: heldOf(history).length,
      passes: heldOf(locks).length - firstLeases(locks.attempts).size,
      terms: heldOf(ofRole("leader")).length,
      permits: heldOf(permits).length,
      losses: history.attempts.filter(({ ended }) => ended?.result === "lost").length,
      deaths: history.attempts.filter(({ held, left }) => held !== undefined && left === undefined).length,
      writes: history.ledger.length,
      unwritten:
        history.attempts.filter(({ ended, left }) =>
          history.ledger.length > 0 && left?.how === "done" && ended?.result === "lost"
        ).length,
      overlaps: exclusion.violations.filter(({ law }) => law === "exclusion").length,
      frozen: exclusion.frozen,
      forgotten: exclusion.forgotten,
      unheard: exclusion.unheard,
      stuck: waits.violations.filter(({ law }) => law === "stuck").length,
      longestGap: waits.longestGap
    }
  }
}
