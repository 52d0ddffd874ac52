/**
 * Law 6: first come, first served, among processes and within each. Judged where nothing disturbed the line.
 */
import type { Attempt, History } from "../History.ts"
import type { Promises, Violation } from "./Promises.ts"

/** Of two that come within this time nobody can say from outside who came first. */
const margin = 150
/** For how long a fault may be felt after it is over. */
const aftermath = 6000

interface Place {
  readonly attempt: Attempt
  readonly granted: number
  /** When it stood in the server's line, behind those of its own process: not before, */
  readonly earliest: number
  /** and not after. */
  readonly latest: number
}

const endOf = ({ ended, left, worker }: Attempt): number => left?.at ?? ended?.at ?? worker.gone

/** Only the first of a process' own line stands in the server's. */
const places = (attempts: ReadonlyArray<Attempt>): ReadonlyArray<Place> => {
  const byProcess = Map.groupBy(attempts, ({ layer, worker }) => `${worker.name}/${layer}`)
  return [...byProcess.values()].flatMap((own) => {
    const latest = new Map<Attempt, number>()
    let last = 0
    for (const attempt of own.toSorted((a, b) => a.asked - b.asked)) {
      latest.set(attempt, Math.max(attempt.asked, last))
      last = Math.max(last, endOf(attempt))
    }
    const held = own.flatMap((attempt) => attempt.held === undefined ? [] : [{ attempt, granted: attempt.held.at }])
    last = 0
    return held.toSorted((a, b) => a.granted - b.granted).map(({ attempt, granted }) => {
      const earliest = Math.max(attempt.asked, last)
      last = Math.max(last, endOf(attempt))
      return { attempt, granted, earliest, latest: latest.get(attempt) ?? attempt.asked }
    })
  })
}

/** Whether something stood still or was broken from `from` to `to`. */
const isDisturbed = (history: History, from: number, to: number): boolean =>
  history.faults.some((fault) => fault.from <= to && fault.to + aftermath >= from) ||
  history.workers.some(({ stalls }) => stalls.some((stall) => stall.from <= to && stall.to + margin >= from))

export const check = (history: History, promises: Promises): ReadonlyArray<Violation> => {
  if (!promises.fifo) return []
  const violations: Array<Violation> = []
  for (const [key, attempts] of Map.groupBy(history.attempts, ({ key }) => key)) {
    const line = places(attempts).toSorted((a, b) => a.earliest - b.earliest)
    for (const one of line) {
      const overtaker = line.find((other) =>
        other.earliest > one.latest + margin && other.earliest < one.granted && other.granted < one.granted
      )
      if (overtaker === undefined || isDisturbed(history, one.latest, one.granted)) continue
      violations.push({
        law: "first come, first served",
        text: `${key}: ${name(overtaker)} came ${(overtaker.earliest - one.latest).toFixed(0)} ms after ${name(one)}` +
          " and was served before"
      })
    }
  }
  return violations
}

const name = ({ attempt }: Place): string => `${attempt.worker.name}#${attempt.id}`
