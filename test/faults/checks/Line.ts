/**
 * Law 6: first come, first served, among processes and within each. Judged where nothing disturbed the line.
 */
import type { Attempt, History } from "../History.ts"
import { disturbances, type Promises, type Violation } from "./Promises.ts"

/** Of two that come within this time nobody can say from outside who came first. */
const margin = 150

interface Place {
  readonly attempt: Attempt
  /** When it was served; never, if it gave up or died in line. */
  readonly granted: number
  /** When it stood in the server's line, behind those of its own process: not before, */
  readonly earliest: number
  /** and not after. */
  readonly latest: number
  /** Until when it stood there. */
  readonly until: number
}

const never = Number.POSITIVE_INFINITY

const endOf = ({ ended, left, worker }: Attempt): number => left?.at ?? ended?.at ?? worker.gone

const untilOf = (attempt: Attempt): number => attempt.held?.at ?? attempt.ended?.at ?? attempt.worker.gone

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
    last = 0
    return own.toSorted((a, b) => untilOf(a) - untilOf(b)).map((attempt) => {
      const { asked, held } = attempt
      const earliest = Math.max(asked, last)
      if (held !== undefined) last = Math.max(last, endOf(attempt))
      return {
        attempt,
        granted: held?.at ?? never,
        earliest,
        latest: latest.get(attempt) ?? asked,
        until: untilOf(attempt)
      }
    })
  })
}

export const check = (history: History, promises: Promises): ReadonlyArray<Violation> => {
  if (!promises.fifo) return []
  const violations: Array<Violation> = []
  const disturbed = disturbances(history, promises)
  const isDisturbed = (since: number, until: number) =>
    disturbed.some(({ from, to }) => from <= until && to + margin >= since)
  for (const [key, attempts] of Map.groupBy(history.attempts, ({ key }) => key)) {
    const line = places(attempts)
    const served = line.filter(({ granted }) => granted !== never).toSorted((a, b) => a.granted - b.granted)
    for (const one of line) {
      const overtaker = served.find((other) =>
        other.earliest > one.latest + margin &&
        other.granted < (one.granted === never ? one.until - margin : one.granted)
      )
      // What comes after that is no excuse: whoever is overtaken may wait until something disturbs everybody.
      if (overtaker === undefined || isDisturbed(one.latest, overtaker.granted)) continue
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
