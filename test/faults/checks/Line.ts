/**
 * Law 6: first come, first served in turns, among processes and within each: a process may serve its own line for a turn
 * from the grant. Judged where nothing disturbed the line.
 */
import { type Attempt, firstLeases, type History } from "../History.ts"
import { disturbances, type Promises, type Violation } from "./Promises.ts"

/** Of two that come within this time it cannot be said from outside which came first. */
const margin = 150

interface Place {
  readonly attempt: Attempt
  readonly process: string
  /** It did not work under the hold of another before it. */
  readonly isFirst: boolean
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

/**
 * Since when each of a process stands in the server's line at the earliest. The request of one that gave up stays in line
 * for the next of its process, so this is since when the local line was not empty, or free again.
 */
const earliestOf = (own: ReadonlyArray<Attempt>): ReadonlyMap<Attempt, number> => {
  const since = new Map<Attempt, number>()
  let [start, end] = [0, -1]
  for (const attempt of own.toSorted((a, b) => a.asked - b.asked)) {
    if (attempt.asked > end) start = attempt.asked
    end = Math.max(end, untilOf(attempt))
    since.set(attempt, start)
  }
  const earliest = new Map<Attempt, number>()
  let free = 0
  for (const attempt of own.toSorted((a, b) => untilOf(a) - untilOf(b))) {
    earliest.set(attempt, Math.max(since.get(attempt) ?? 0, free))
    if (attempt.held !== undefined) free = Math.max(free, endOf(attempt))
  }
  return earliest
}

/** When each of a process stands in the server's line at the latest: when all that came before it are done. */
const latestOf = (own: ReadonlyArray<Attempt>): ReadonlyMap<Attempt, number> => {
  const latest = new Map<Attempt, number>()
  let free = 0
  for (const attempt of own.toSorted((a, b) => a.asked - b.asked)) {
    latest.set(attempt, Math.max(attempt.asked, free))
    free = Math.max(free, endOf(attempt))
  }
  return latest
}

/** Only the first of a process' own line stands in the server's. */
const places = (attempts: ReadonlyArray<Attempt>): ReadonlyArray<Place> => {
  const first = firstLeases(attempts)
  const byProcess = Map.groupBy(attempts, ({ layer, worker }) => `${worker.name}/${layer}`)
  return [...byProcess].flatMap(([process, own]) => {
    const earliest = earliestOf(own)
    const latest = latestOf(own)
    return own.map((attempt) => ({
      attempt,
      process,
      isFirst: first.has(attempt),
      granted: attempt.held?.at ?? never,
      earliest: earliest.get(attempt) ?? attempt.asked,
      latest: latest.get(attempt) ?? attempt.asked,
      until: untilOf(attempt)
    }))
  })
}

/** By how much `other` came later, where that tells which of the two is to be served first. */
const cameLater = (other: Place, one: Place): number => {
  if (other.process === one.process) return other.attempt.asked - one.attempt.asked
  return other.isFirst ? other.earliest - one.latest : 0
}

const overtakings = (
  history: History,
  isDisturbed: (since: number, until: number) => boolean
): ReadonlyArray<Violation> => {
  const violations: Array<Violation> = []
  for (const [key, attempts] of Map.groupBy(history.attempts, ({ key }) => key)) {
    const line = places(attempts)
    const served = line.filter(({ granted }) => granted !== never).toSorted((a, b) => a.granted - b.granted)
    for (const one of line) {
      const overtaker = served.find((other) =>
        cameLater(other, one) > margin &&
        other.granted < (one.granted === never ? one.until - margin : one.granted)
      )
      // What comes after that is no excuse: one that is overtaken may wait until something disturbs everything.
      if (overtaker === undefined) continue
      const since = overtaker.process === one.process ? one.attempt.asked : one.latest
      if (isDisturbed(since, overtaker.granted)) continue
      violations.push({
        law: "first come, first served",
        text: `${key}: ${name(overtaker)} came ${cameLater(overtaker, one).toFixed(0)} ms after ${name(one)}` +
          " and was served before"
      })
    }
  }
  return violations
}

/** No lease begins under a hold that was granted longer than a turn ago. */
const longTurns = (
  { attempts }: History,
  { turn }: Promises,
  isDisturbed: (since: number, until: number) => boolean
): ReadonlyArray<Violation> => {
  const violations: Array<Violation> = []
  const begun = new Map([...firstLeases(attempts)].map(({ held }) => [held?.owner, held?.at ?? never]))
  for (const attempt of attempts) {
    const { held, id, key, worker } = attempt
    const begin = begun.get(held?.owner)
    if (held === undefined || begin === undefined || held.at - begin <= turn + margin) continue
    if (isDisturbed(begin, held.at)) continue
    violations.push({
      law: "turn",
      text: `${key}: ${worker.name}#${id} was passed the key ${(held.at - begin).toFixed(0)} ms after its grant`
    })
  }
  return violations
}

export const check = (history: History, promises: Promises): ReadonlyArray<Violation> => {
  const disturbed = disturbances(history, promises)
  const isDisturbed = (since: number, until: number) =>
    disturbed.some(({ from, to }) => from <= until && to + margin >= since)
  return [
    ...(promises.fifo ? overtakings(history, isDisturbed) : []),
    ...longTurns(history, promises, isDisturbed)
  ]
}

const name = ({ attempt }: Place): string => `${attempt.worker.name}#${attempt.id}`
