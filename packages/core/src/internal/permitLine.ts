/**
 * The local line for permits of one key. Each permit is a lock, and one more lock, the place, is the line among processes.
 * A process that holds the place is the head: it tries the permits, waits for those that are held elsewhere, and gives
 * what is granted to its callers in the order in which they came. Only the head waits for permits, so no two processes
 * wait for each other.
 *
 * A head serves its callers for a turn, and then goes to the end of the line. Meanwhile a permit that a caller of this
 * process no longer uses passes to the next one without asking the backend, as far as its lock passes holds.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { LockBackendError, type LockError, LockLost } from "../LockError.ts"
import type * as leases from "./lease.ts"
import * as options from "./options.ts"
import { end, errorIn, failureOf, type Part } from "./part.ts"
import {
  ask,
  askForPermit,
  type Claim,
  collectAnswers,
  collectTries,
  type Failure,
  type Got,
  isOver,
  missing,
  now,
  type Search,
  searchIn,
  stop,
  tryMore
} from "./permitSearch.ts"

/** A head that dies must not stop all others for the ttl of a permit. */
const longestPlaceTtl = 5000
/** How many permits held elsewhere a head waits for in the backend's lines. It looks at the others now and then. */
const mostWatched = 4
const lookEvery = 75
/** How long a head serves its callers while more of them come. */
const turn = 20
/** How long the waits of a head are kept until it is the head again. Later, another process is. */
const grace = 50
/** How long a permit that was granted before the place is kept. Later, another process is the head. */
const early = 5
/** After the place was lost. */
const pause = 50

export class PermitLine {
  /** Callers that wait for permits or use some. */
  claims = 0
  /** Those that wait, in the order of their arrival. Only the first may have some of its permits. */
  readonly waiting = new Set<Claim>()
  /** The kind of caller that permits are asked for. */
  kind = ""
  place: Part | undefined
  /** When this process became the head. */
  headSince: number | undefined
  readonly watched = new Map<number, Part>()
  /** Those of them that are to pass from a caller of this process. */
  readonly passing = new Set<number>()
  search: Search | undefined
  mustLook = false
  /** The permits that callers of this process have, with their leases. */
  readonly inUse = new Map<number, leases.Lease | undefined>()
  readonly timers: { look?: Timer, grace?: Timer, early?: Timer, pause?: Timer } = {}
  private isAwake = false
  private isBusy = false

  /** Serves the callers in a step of its own, after whatever changed. */
  readonly wake = (): void => {
    if (this.isAwake) return
    this.isAwake = true
    queueMicrotask(() => {
      this.isAwake = false
      this.step(() => serve(this))
    })
  }

  /** The fibers of the parts run within a step, and may interrupt a caller: it must not take another step in this one. */
  step<A>(take: () => A): A | undefined {
    if (this.isBusy) return undefined
    this.isBusy = true
    const answer = take()
    this.isBusy = false
    return answer
  }
}

type Timer = Fiber.Fiber<void> | undefined

const lines = new WeakMap<object, Map<string, PermitLine>>()

export const lineOf = (lock: object, key: string): PermitLine => {
  const known = lines.get(lock) ?? new Map<string, PermitLine>()
  lines.set(lock, known)
  const line = known.get(key) ?? new PermitLine()
  known.set(key, line)
  return line
}

/** Nothing is remembered of a key that nothing in this process waits for or uses. */
export const forget = (lock: object, key: string, line: PermitLine): void => {
  if (--line.claims === 0) lines.get(lock)?.delete(key)
}

const after = (line: PermitLine, { context }: Claim, name: keyof PermitLine["timers"], millis: number): void => {
  stopTimer(line, name)
  line.timers[name] = Effect.runForkWith(context)(Effect.andThen(
    Effect.sleep(millis),
    Effect.sync(() => {
      line.timers[name] = undefined
      if (name === "look") line.mustLook = true
      if (name === "early") stopSearch(line)
      if (name === "grace") dismiss(line)
      line.wake()
    })
  ))
}

const stopTimer = (line: PermitLine, name: keyof PermitLine["timers"]): void => {
  line.timers[name]?.interruptUnsafe()
  line.timers[name] = undefined
}

// ---------------------------------------------------------------------------------------------------------------------
// Callers
// ---------------------------------------------------------------------------------------------------------------------

/** Waits in line for the permits, which are then the claim's. */
export const takeInLine = (line: PermitLine, claim: Claim): Effect.Effect<void, LockError> =>
  Effect.callback((resume) => {
    // The program of the caller does not run within a step of the line.
    claim.settle = (result) => queueMicrotask(() => resume(result))
    line.waiting.add(claim)
    line.wake()
  })

/** The claim has what it asked for. */
export const use = (line: PermitLine, { got }: Claim): void => {
  for (const { index, part } of got) line.inUse.set(index, part.section)
}

/** A caller neither waits nor uses what it has. Answers with what ends now, the last permit first. */
export const quit = (line: PermitLine, claim: Claim): ReadonlyArray<Part> => {
  const { got } = claim
  const wasWaiting = line.waiting.delete(claim)
  claim.got = []
  for (const { index } of got) line.inUse.delete(index)
  const parts = got.map(({ part }) => part).toReversed()
  for (const part of parts) end(part)
  line.wake()
  return wasWaiting && line.waiting.size === 0 ? [...parts, ...line.step(() => leave(line)) ?? []] : parts
}

/** A caller is about to release a permit. If its process is the head, the next caller waits for it from now on. */
export const pass = (line: PermitLine, index: number): void => {
  line.inUse.delete(index)
  if (line.waiting.size > 0 && line.step(() => passToNext(line, index)) !== true) line.wake()
}

/** `false`: it is of no use to the next caller, or may not pass. */
const passToNext = (line: PermitLine, index: number): boolean => {
  const [first] = line.waiting
  const isHead = line.place?.lease !== undefined && !line.place.isLost && line.headSince !== undefined
  if (!isHead || first === undefined || first.kind !== line.kind || index >= first.limit) return false
  if (line.watched.has(index) || line.passing.size >= wanted(line, mostServed(line, first))) return false
  line.passing.add(index)
  waitFor(line, first, index)
  return true
}

const settle = (line: PermitLine, claim: Claim, result: Effect.Effect<void, LockError>): void => {
  line.waiting.delete(claim)
  claim.settle(result)
}

const concernsAll: ReadonlyArray<LockBackendError["reason"]> = ["Unreachable", "Timeout", "Closed"]

/** Fails the first caller, and all of them when the backend cannot be reached or the layer is closed. */
const refuse = (line: PermitLine, failure: Failure): void => {
  const error = errorIn(failure)
  const isForAll = error instanceof LockBackendError && concernsAll.includes(error.reason)
  for (const claim of [...line.waiting].slice(0, isForAll ? undefined : 1)) {
    settle(line, claim, Effect.failCause(failure))
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The place
// ---------------------------------------------------------------------------------------------------------------------

/** Goes on for the callers that wait, after any change. */
const serve = (line: PermitLine): void => {
  const { place, timers } = line
  const [first] = line.waiting
  if (first === undefined) leave(line)
  else if (place === undefined) {
    if (timers.pause === undefined) enter(line, first)
  } else if (place.isLost || place.exit !== undefined) losePlace(line, place, first)
  else if (place.lease === undefined) dropGranted(line, first)
  else lead(line, place, first)
}

/** Stands in line among the processes. A caller that is alone tries its permits meanwhile. */
const enter = (line: PermitLine, first: Claim): void => {
  const ttl = first.options?.ttl
  const plan = options.make({ ttl }, {}, "")
  line.place = ask(first, "permits", {
    timeout: "Infinity",
    ttl: typeof plan === "string" ? ttl : Math.min(plan.ttl, longestPlaceTtl),
    renew: true,
    maxHold: "Infinity"
  }, line.wake)
  if (line.claims > 1 || line.place.exit !== undefined) return
  adopt(line, first)
  search(line, first, first.permits)
}

/** Is no longer the head. Its waits are kept, because it may be the head again at once. */
const stepBack = (line: PermitLine, claim: Claim): void => {
  line.place = undefined
  line.headSince = undefined
  stopSearch(line)
  stopTimer(line, "look")
  if (line.watched.size > 0) after(line, claim, "grace", grace)
}

/** A place that is lost is no loss of a permit: the line goes on. */
const losePlace = (line: PermitLine, place: Part, first: Claim): void => {
  stepBack(line, first)
  end(place)
  // Another process may be the head, and wait for what is kept here.
  for (const { part } of first.got) end(part)
  first.got = []
  const failure = failureOf(place)
  if (place.isLost || errorIn(failure) instanceof LockLost) return after(line, first, "pause", pause)
  if (failure !== undefined) refuse(line, failure)
  line.wake()
}

/** No caller waits: nothing stays held or asked for. Answers with what ends now. */
const leave = (line: PermitLine): ReadonlyArray<Part> => {
  const { place } = line
  line.place = undefined
  line.headSince = undefined
  const parts = [...dismiss(line), ...place === undefined ? [] : [place]]
  if (place !== undefined) end(place)
  for (const name of ["look", "grace", "early", "pause"] as const) stopTimer(line, name)
  return parts
}

/** Waits for no permit and tries none. */
const dismiss = (line: PermitLine): ReadonlyArray<Part> => {
  const parts = [...stopSearch(line), ...line.watched.values()]
  line.watched.clear()
  line.passing.clear()
  for (const part of parts) end(part)
  return parts
}

const stopSearch = (line: PermitLine): ReadonlyArray<Part> => {
  const { search } = line
  line.search = undefined
  return stop(search)
}

/** What is granted to a process that is not the head is released, because the head may wait for it. */
const dropGranted = (line: PermitLine, first: Claim): void => {
  for (const [index, part] of line.watched) {
    if (part.lease === undefined && part.exit === undefined) continue
    line.watched.delete(index)
    line.passing.delete(index)
    end(part)
  }
  const tries = [...line.search?.trying.values() ?? []]
  if (tries.some(({ exit }) => exit !== undefined)) stopSearch(line)
  // The answer about the place may be on its way.
  else if (line.timers.early === undefined && tries.some(({ lease }) => lease !== undefined)) {
    after(line, first, "early", early)
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The work of the head
// ---------------------------------------------------------------------------------------------------------------------

const lead = (line: PermitLine, place: Part, first: Claim): void => {
  if (line.headSince === undefined) begin(line, first)
  adopt(line, first)
  const most = mostServed(line, first)
  const failure = collect(line, first, most)
  if (failure !== undefined) {
    refuse(line, failure)
    return line.wake()
  }
  const [next] = line.waiting
  if (next === undefined) leave(line)
  else if (next.kind !== line.kind) line.wake()
  else if (turnIsOver(line, next) && next !== first && next.got.length === 0) {
    stepBack(line, next)
    enter(line, next)
    end(place)
  } else want(line, next, most)
}

/** It is the head from now on. */
const begin = (line: PermitLine, first: Claim): void => {
  line.headSince = now(first)
  line.mustLook = line.search === undefined
  stopTimer(line, "grace")
  stopTimer(line, "early")
  // An error of a while ago is not this head's.
  for (const [index, part] of line.watched) if (part.exit !== undefined) line.watched.delete(index)
}

/** Callers of another kind have no use for what was asked for before. */
const adopt = (line: PermitLine, { kind }: Claim): void => {
  if (line.kind === kind) return
  dismiss(line)
  line.kind = kind
  line.mustLook = true
}

const turnIsOver = ({ headSince = 0 }: PermitLine, claim: Claim): boolean => now(claim) - headSince >= turn

/** How many callers are served: once the turn is over only the first. */
const mostServed = (line: PermitLine, first: Claim): number => turnIsOver(line, first) ? 1 : first.limit

/** How many more permits can be of use now. */
const wanted = (line: PermitLine, most: number): number => {
  let sum = 0
  let count = 0
  for (const claim of line.waiting) {
    if (claim.kind !== line.kind || count++ === most) break
    sum += missing(claim)
  }
  return sum
}

/** Takes in what was granted, gives it to the callers, and drops what was lost. Answers with a serious failure. */
const collect = (line: PermitLine, first: Claim, most: number): Failure | undefined => {
  for (const { part } of first.got) if (part.isLost) end(part)
  first.got = first.got.filter(({ part }) => !part.isLost)
  const granted: Array<Got> = []
  const tried = line.search === undefined ? undefined : collectTries(line.search, granted)
  const waited = collectAnswers(line.watched, granted)
  for (const index of line.passing) if (!line.watched.has(index)) line.passing.delete(index)
  give(line, most, granted)
  return tried ?? waited
}

const give = (line: PermitLine, most: number, granted: Array<Got>): void => {
  let count = 0
  for (const claim of line.waiting) {
    if (granted.length === 0 || claim.kind !== line.kind || count++ === most) break
    claim.got.push(...granted.splice(0, missing(claim)))
    if (missing(claim) > 0) break
    use(line, claim)
    settle(line, claim, Effect.void)
  }
  for (const { part } of granted) end(part)
}

/** Asks for what is missing: tries the permits first, and then waits for some of them. */
const want = (line: PermitLine, first: Claim, most: number): void => {
  if (line.mustLook) {
    stopSearch(line)
    search(line, first, wanted(line, most))
  } else if (line.search !== undefined) {
    tryMore(line.search, first, wanted(line, most), line.waiting.size > 1, line.wake)
  }
  if (line.search !== undefined && !isOver(line.search)) return
  line.search = undefined
  watch(line, first)
}

const search = (line: PermitLine, first: Claim, wanted: number): void => {
  line.mustLook = false
  line.search = searchIn(first, (index) => isUnknown(line, first, index))
  tryMore(line.search, first, wanted, line.waiting.size > 1, line.wake)
}

/** It does not have the permit, does not wait for it, and will not have it passed to it. */
const isUnknown = ({ inUse, watched }: PermitLine, first: Claim, index: number): boolean =>
  !watched.has(index) && !inUse.has(index) && !first.got.some((got) => got.index === index)

/** Waits for a few of the permits that are held elsewhere, and looks at the others now and then. */
const watch = (line: PermitLine, first: Claim): void => {
  const { timers, watched } = line
  if (watched.size >= mostWatched && timers.look !== undefined) return
  const { candidates } = searchIn(first, (index) => isUnknown(line, first, index))
  for (const index of candidates.splice(0, Math.max(mostWatched - watched.size, 0))) waitFor(line, first, index)
  if (candidates.length > 0 && timers.look === undefined) after(line, first, "look", lookEvery)
}

const waitFor = (line: PermitLine, claim: Claim, index: number): void => {
  line.watched.set(index, askForPermit(claim, index, "Infinity", line.waiting.size > 1, line.wake))
}
