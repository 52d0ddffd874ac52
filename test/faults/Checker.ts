/**
 * Judges a history by what the backend promises. Nothing here asks a clock or a server.
 */
import * as Exclusion from "./checks/Exclusion.ts"
import * as Fencing from "./checks/Fencing.ts"
import * as Line from "./checks/Line.ts"
import type { Promises, Violation } from "./checks/Promises.ts"
import * as Waits from "./checks/Waits.ts"
import type { History } from "./History.ts"

/** What a run came to. */
export interface Verdict {
  readonly violations: ReadonlyArray<Violation>
  readonly figures: Figures
}

/** Counts of a run, for people. Times in milliseconds. */
export interface Figures {
  readonly faults: number
  readonly grants: number
  /** Losses that were reported, */
  readonly losses: number
  /** and grants of workers that died under them. */
  readonly deaths: number
  /** Two who believed to hold a key at once, and nothing excuses it. */
  readonly overlaps: number
  /** Two at once because one stood still, never longer than it stood still. */
  readonly frozen: number
  /** Two at once because the server lost its memory in a way for which it promises nothing. */
  readonly forgotten: number
  /** Two at once for the moment in which the first heard that its connection, and so its lock, was gone. */
  readonly unheard: number
  readonly stuck: number
  /** The longest time that somebody waited for a key which nobody held, faults included. */
  readonly longestGap: number
}

/** Checks everything. */
export const check = (history: History, promises: Promises): Verdict => {
  const exclusion = Exclusion.check(history, promises)
  const waits = Waits.check(history, promises)
  const violations = [
    ...exclusion.violations,
    ...Fencing.check(history, promises),
    ...waits.violations,
    ...Line.check(history, promises)
  ]
  return {
    violations,
    figures: {
      faults: history.faults.length,
      grants: history.attempts.filter(({ held }) => held !== undefined).length,
      losses: history.attempts.filter(({ ended }) => ended?.result === "lost").length,
      deaths: history.attempts.filter(({ held, left }) => held !== undefined && left === undefined).length,
      overlaps: exclusion.violations.filter(({ law }) => law === "exclusion").length,
      frozen: exclusion.frozen,
      forgotten: exclusion.forgotten,
      unheard: exclusion.unheard,
      stuck: waits.violations.filter(({ law }) => law === "stuck").length,
      longestGap: waits.longestGap
    }
  }
}
