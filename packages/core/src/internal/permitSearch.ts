/**
 * What a caller asks for, and how permits are asked for: each is a lock, and some of them are tried at a time.
 */
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import { Buffer } from "node:buffer"
import { createHash } from "node:crypto"
import { type LockError, LockLost, LockUnavailable } from "../LockError.ts"
import * as options from "./options.ts"
import { end, ended, errorIn, failureOf, type Part, start, type WithLock } from "./part.ts"

/** How permits are taken and kept. Callers always stand in line. */
export type PermitOptions = Pick<options.Options, "ttl" | "timeout" | "renew" | "maxHold" | "owner">

/** An error, or a defect of the backend: callers that wait are told of either. */
export type Failure = Cause.Cause<LockError>

/** How many permits are tried at the same time. */
const widestLook = 8

/** A permit that is held. */
export interface Got {
  readonly index: number
  readonly part: Part
}

/** What a caller asks for, and what it has of it. */
export interface Claim {
  readonly withLock: WithLock
  readonly key: string
  readonly limit: number
  readonly permits: number
  readonly options: PermitOptions | undefined
  /** Callers of one kind can use the permits that are asked for on behalf of each other. */
  readonly kind: string
  /** Without the sections of the caller: permits that it holds already are in use like others. */
  readonly context: Context.Context<never>
  got: Array<Got>
  settle: (result: Effect.Effect<void, LockError>) => void
}

export const missing = ({ got, permits }: Claim): number => permits - got.length

export const now = ({ context }: Claim): number =>
  Number(Context.get(context, Clock.Clock).monotonicTimeNanosUnsafe()) / 1e6

/** A suffix keeps a key's prefix, by which access may be granted. A name that is too long is a hash with other suffixes. */
const derived = (key: string, what: string): string => {
  const name = `${key}#${what}`
  return options.keyProblem(name) === undefined
    ? name
    : `${createHash("sha256").update(Buffer.from(key)).digest("hex")}#long-${what}`
}

/** Asks for a lock on behalf of callers of the claim's kind. */
export const ask = (claim: Claim, name: string, given: options.SharedOptions, changed: () => void): Part => {
  const part = start(
    claim.withLock,
    derived(claim.key, name),
    { ...claim.options, retry: false, linger: 0, minHold: 0, ...given },
    claim.context
  )
  part.onChange = changed
  if (part.exit !== undefined) changed()
  return part
}

/** `shared`: others of this process wait for permits too. */
export const askForPermit = (
  claim: Claim,
  index: number,
  timeout: 0 | "Infinity",
  shared: boolean,
  changed: () => void
): Part => ask(claim, `permit-${index}`, { timeout, shared }, changed)

/** A failure that is not about the single permit: that one is held, or was lost before it was of use. */
const seriousFailureOf = (part: Part): Failure | undefined => {
  const failure = failureOf(part)
  const error = errorIn(failure)
  return error instanceof LockUnavailable || error instanceof LockLost ? undefined : failure
}

/** An attempt to take some of these permits, which waits for none of them. */
export interface Search {
  readonly candidates: Array<number>
  readonly trying: Map<number, Part>
  refusals: number
  isStopped: boolean
}

/** Permits from a random one on, so that processes seldom try the same one. */
export const searchIn = ({ context, limit }: Claim, isCandidate: (index: number) => boolean): Search => {
  const candidates: Array<number> = []
  for (let index = 0; index < limit; index++) if (isCandidate(index)) candidates.push(index)
  const first = Math.floor(Context.get(context, Random.Random).nextDoubleUnsafe() * candidates.length)
  candidates.push(...candidates.splice(0, first))
  return { candidates, trying: new Map(), refusals: 0, isStopped: false }
}

/** Takes in the answers: adds what was granted, and answers with a serious failure. */
export const collectAnswers = (answers: Map<number, Part>, granted: Array<Got>): Failure | undefined => {
  let failure: Failure | undefined
  for (const [index, part] of answers) {
    if (part.lease === undefined && part.exit === undefined) continue
    answers.delete(index)
    if (part.lease !== undefined && !part.isLost) granted.push({ index, part })
    else {
      end(part)
      failure ??= seriousFailureOf(part)
    }
  }
  return failure
}

/** Takes in the answers to the tries so far. */
export const collectTries = (search: Search, granted: Array<Got>): Failure | undefined => {
  const [triedBefore, grantedBefore] = [search.trying.size, granted.length]
  const failure = collectAnswers(search.trying, granted)
  search.refusals += triedBefore - search.trying.size - (granted.length - grantedBefore)
  return failure
}

/** As many at a time as are wanted; after each refusal twice as many. */
export const tryMore = (
  search: Search,
  claim: Claim,
  wanted: number,
  shared: boolean,
  changed: () => void
): void => {
  const width = Math.min(wanted * 2 ** Math.min(search.refusals, 3), widestLook)
  while (search.trying.size < width) {
    const index = search.candidates.shift()
    if (index === undefined) return
    const part = askForPermit(claim, index, 0, shared, changed)
    // The first steps of the part may interrupt the caller.
    if (search.isStopped) return end(part)
    search.trying.set(index, part)
  }
}

export const isOver = (search: Search): boolean => search.trying.size === 0 && search.candidates.length === 0

/** Ends the attempt, and answers with what has to end with it. */
export const stop = (search: Search | undefined): ReadonlyArray<Part> => {
  if (search === undefined) return []
  search.isStopped = true
  const parts = [...search.trying.values()]
  search.trying.clear()
  for (const part of parts) end(part)
  return parts
}

/** Tries once, without standing in line. */
export const takeAtOnce = (claim: Claim, isInUse: (index: number) => boolean): Effect.Effect<void, LockError> =>
  Effect.callback((resume) => {
    const search = searchIn(claim, (index) => !isInUse(index))
    let isAwake = false
    const wake = () => {
      if (isAwake) return
      isAwake = true
      queueMicrotask(look)
    }
    const look = () => {
      isAwake = false
      if (search.isStopped) return
      const granted: Array<Got> = []
      const failure = collectTries(search, granted)
      for (const got of granted) {
        if (missing(claim) > 0) claim.got.push(got)
        else end(got.part)
      }
      if (failure !== undefined || missing(claim) === 0) {
        stop(search)
        return resume(failure === undefined ? Effect.void : Effect.failCause(failure))
      }
      tryMore(search, claim, missing(claim), false, wake)
      if (isOver(search)) resume(Effect.fail(new LockUnavailable({ key: claim.key, reason: "held" })))
    }
    look()
    return Effect.suspend(() => ended(stop(search)))
  })
