/**
 * What a call asks for, checked before anything is sent.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import type { Lock } from "../Lock.ts"
import type { LockUnavailable } from "../LockError.ts"

/** Times in milliseconds; `Infinity` where there is no limit. */
export interface Plan {
  readonly ttl: Duration.Duration
  readonly timeout: number
  readonly retry: Schedule.Schedule<unknown, LockUnavailable> | undefined
  /** Between renewals; `undefined`: a third of the ttl that was given; `Infinity`: never. */
  readonly renewEvery: number | undefined
  readonly maxHold: number
  readonly label: string
}

const maxKeyBytes = 1024
const maxLabel = 128
const defaultTtl = 30_000
// Less is over before anybody can use it: a timer may be late by that much.
const minTtl = 10
const encoder = new TextEncoder()

// A UTF-16 unit takes at most three bytes of UTF-8, so short keys need no count.
const tooLong = (key: string): boolean => key.length * 3 > maxKeyBytes && encoder.encode(key).length > maxKeyBytes

type Problem = (field: string, problem: string) => void

const time = (field: string, input: Duration.Input | undefined, whenAbsent: number, problem: Problem): number => {
  if (input === undefined) return whenAbsent
  const duration = Duration.fromInput(input)
  if (Option.isNone(duration) || Duration.isNegative(duration.value)) {
    problem(field, "is not a duration (a number of milliseconds, \"30 seconds\", Duration.minutes(1), ...)")
    return whenAbsent
  }
  return Duration.toMillis(duration.value)
}

const renewal = (
  renew: Lock.Options["renew"],
  ttl: number,
  problem: Problem
): number | undefined => {
  if (renew === undefined || renew === true) return undefined
  if (renew === false) return Number.POSITIVE_INFINITY
  const every = time("renew", renew, ttl / 3, problem)
  if (every <= 0) problem("renew", "must be longer than zero")
  if (every >= ttl) problem("renew", "must be shorter than the ttl, or the lease ends between two renewals")
  return every
}

/** What is wrong with a key, whatever the backend; or `undefined`. */
export const keyProblem = (key: string): string | undefined => {
  if (typeof key !== "string") return "the key must be text"
  if (key.length === 0) return "the key is empty"
  if (tooLong(key)) return `the key is longer than ${maxKeyBytes} bytes of UTF-8`
  // An unpaired surrogate becomes U+FFFD on the wire: two keys would be one.
  if (!key.isWellFormed()) return "the key is not well-formed Unicode"
  return undefined
}

/** The options with their defaults, or a sentence that says what is wrong with them. */
export const make = (options: Lock.Options, defaults: Lock.Options, defaultLabel: string): Plan | string => {
  const problems: Array<string> = []
  const problem: Problem = (field, text) => problems.push(`${field} ${text}`)
  const ttl = Duration.millis(time("ttl", options.ttl ?? defaults.ttl, defaultTtl, problem))
  const ttlMillis = Duration.toMillis(ttl)
  if (ttlMillis < minTtl || !Number.isFinite(ttlMillis)) problem("ttl", `must be finite and at least ${minTtl} ms`)
  const plan: Plan = {
    ttl,
    timeout: time("timeout", options.timeout ?? defaults.timeout, Number.POSITIVE_INFINITY, problem),
    retry: options.retry ?? defaults.retry,
    renewEvery: renewal(options.renew ?? defaults.renew, ttlMillis, problem),
    maxHold: time("maxHold", options.maxHold ?? defaults.maxHold, Number.POSITIVE_INFINITY, problem),
    label: options.owner ?? defaults.owner ?? defaultLabel
  }
  if (plan.maxHold <= 0) problem("maxHold", "must be longer than zero")
  if (typeof plan.label !== "string" || plan.label.length > maxLabel || !plan.label.isWellFormed()) {
    problem("owner", `must be text, well-formed Unicode of at most ${maxLabel} characters`)
  }
  return problems.length === 0 ? plan : problems.join("; ")
}
