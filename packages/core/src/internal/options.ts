/**
 * What a call asks for, checked before anything is sent.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type { LockUnavailable } from "../LockError.ts"

/** How a lock is taken and kept. Every field may be left out. */
export interface Options {
  /** How long the backend keeps the lease without renewal, at least 10 milliseconds. Default: 30 seconds. */
  readonly ttl?: Duration.Input | undefined
  /** The longest wait; then `LockUnavailable` (`timeout`). Zero: a single attempt. Default: no limit. */
  readonly timeout?: Duration.Input | undefined
  /**
   * Attempts on this schedule, instead of a place in the backend's line; it sees only `LockUnavailable`. `false`: the
   * line, also where a default schedule is configured. Default: the line.
   */
  readonly retry?: Schedule.Schedule<unknown, LockUnavailable> | false | undefined
  /** How often the watchdog renews; `true` is every third of the ttl, `false` is never. Default: `true`. */
  readonly renew?: boolean | Duration.Input | undefined
  /** No renewal beyond this time from the grant; the lease is then lost (`maxHold`). Default: no limit. */
  readonly maxHold?: Duration.Input | undefined
  /**
   * The key stays taken for at least this time from the start of the lease, whatever the program's exit, unless the lease
   * is released by hand. The caller does not wait for it. Default: zero.
   */
  readonly minHold?: Duration.Input | undefined
  /**
   * How long the process keeps the key after its last use, so that taking it again asks no server. It ends at once when
   * another process waits, where the backend tells that, and after a turn where it does not. Default: zero.
   */
  readonly linger?: Duration.Input | undefined
  /** A label for people, put before the UUID that makes the owner unique. Default: the host's and process' id. */
  readonly owner?: string | undefined
}

/** How core asks for a lock on behalf of several callers. */
export interface SharedOptions extends Options {
  /** Other callers of this process wait for the key: the request reserves tokens for them at once. Default: `false`. */
  readonly shared?: boolean | undefined
}

/** The defaults of a layer. */
export interface Defaults extends Options {
  /**
   * How long from a grant the process may serve its own line before the key goes back to the backend. Zero: every lease is
   * a grant of its own. Default: 20 milliseconds.
   */
  readonly turn?: Duration.Input | undefined
}

export const LockDefaults = Context.Reference<Defaults>("@dlock/core/LockDefaults", { defaultValue: () => ({}) })

/** Checked options. Times in milliseconds; `Infinity` where there is no limit. */
export interface Plan {
  readonly ttl: number
  readonly timeout: number
  readonly retry: Schedule.Schedule<unknown, LockUnavailable> | undefined
  /** Between renewals; `undefined`: a third of the ttl that was given; `Infinity`: never. */
  readonly renewEvery: number | undefined
  readonly maxHold: number
  readonly minHold: number
  readonly linger: number
  readonly label: string
  readonly shared: boolean
}

/** Whether two plans make the same request to the backend. */
export const sameRequest = (a: Plan, b: Plan): boolean =>
  a === b || (a.ttl === b.ttl && a.label === b.label && a.renewEvery === b.renewEvery)

const maxKeyBytes = 1024
const maxLabel = 128
export const defaultTtl = 30_000
const defaultTurn = 20
// A shorter ttl is over before it is of use: a timer may be late by that much.
const minTtl = 10
const encoder = new TextEncoder()

// A UTF-16 unit takes at most three bytes of UTF-8, so short keys need no count.
const tooLong = (key: string): boolean => key.length * 3 > maxKeyBytes && encoder.encode(key).length > maxKeyBytes

type Problem = (field: string, problem: string) => void

const time = (field: string, input: Duration.Input | undefined, whenAbsent: number, problem: Problem): number => {
  if (input === undefined) return whenAbsent
  // Effect takes NaN for zero.
  const duration = Number.isNaN(input) ? Option.none() : Duration.fromInput(input)
  if (Option.isNone(duration)) {
    problem(field, "is not a duration (a number of milliseconds, \"30 seconds\", Duration.minutes(1), ...)")
    return whenAbsent
  }
  if (Duration.isNegative(duration.value)) {
    problem(field, "must not be negative")
    return whenAbsent
  }
  return Duration.toMillis(duration.value)
}

const renewal = (renew: Options["renew"], ttl: number, problem: Problem): number | undefined => {
  if (renew === undefined || renew === true) return undefined
  if (renew === false) return Number.POSITIVE_INFINITY
  const every = time("renew", renew, ttl / 3, problem)
  if (every <= 0) problem("renew", "must be longer than zero")
  if (every >= ttl) problem("renew", "must be shorter than the ttl, or the lease ends between two renewals")
  return every
}

const schedule = (retry: Options["retry"], problem: Problem): Plan["retry"] => {
  if (retry === undefined || retry === false) return undefined
  if (!Schedule.isSchedule(retry)) problem("retry", "must be a Schedule, or false for the backend's line")
  return retry
}

/** What is wrong with a key, whatever the backend; or `undefined`. */
export const keyProblem = (key: unknown): string | undefined => {
  if (typeof key !== "string") return "the key must be text"
  if (key.length === 0) return "the key is empty"
  if (tooLong(key)) return `the key is longer than ${maxKeyBytes} bytes of UTF-8`
  // An unpaired surrogate becomes U+FFFD on the wire: two keys would be one.
  if (!key.isWellFormed()) return "the key is not well-formed Unicode"
  return undefined
}

// A slash ends the label within an owner, and control characters break logs and tables.
// oxlint-disable-next-line no-control-regex
const badLabel = /[\u0000-\u001f\u007f/]/

const checkHold = (plan: Plan, problem: Problem): void => {
  if (plan.maxHold <= 0) problem("maxHold", "must be longer than zero")
  if (!Number.isFinite(plan.minHold)) problem("minHold", "must be finite")
  if (!Number.isFinite(plan.linger)) problem("linger", "must be finite")
  if (plan.minHold > plan.maxHold) problem("minHold", "must not be longer than maxHold")
  if (plan.minHold > plan.ttl && plan.renewEvery === Number.POSITIVE_INFINITY) {
    problem("minHold", "must not be longer than the ttl of a lease that is not renewed")
  }
}

/** The options with their defaults, or a sentence that says what is wrong with them. */
export const make = (options: SharedOptions, defaults: Defaults, defaultLabel: string): Plan | string => {
  const problems: Array<string> = []
  const problem: Problem = (field, text) => problems.push(`${field} ${text}`)
  if (typeof options !== "object" || options === null) return "the options must be an object"
  const ttl = time("ttl", options.ttl ?? defaults.ttl, defaultTtl, problem)
  if (ttl < minTtl || !Number.isFinite(ttl)) problem("ttl", `must be finite and at least ${minTtl} ms`)
  const plan: Plan = {
    ttl,
    timeout: time("timeout", options.timeout ?? defaults.timeout, Number.POSITIVE_INFINITY, problem),
    retry: schedule(options.retry ?? defaults.retry, problem),
    renewEvery: renewal(options.renew ?? defaults.renew, ttl, problem),
    maxHold: time("maxHold", options.maxHold ?? defaults.maxHold, Number.POSITIVE_INFINITY, problem),
    minHold: time("minHold", options.minHold ?? defaults.minHold, 0, problem),
    linger: time("linger", options.linger ?? defaults.linger, 0, problem),
    label: options.owner ?? defaults.owner ?? defaultLabel,
    shared: options.shared === true
  }
  checkHold(plan, problem)
  time("turn", defaults.turn, defaultTurn, problem)
  if (typeof plan.label !== "string" || plan.label.length > maxLabel || !plan.label.isWellFormed()) {
    problem("owner", `must be text, well-formed Unicode of at most ${maxLabel} characters`)
  } else if (badLabel.test(plan.label)) {
    problem("owner", "must not contain control characters or a slash")
  }
  return problems.length === 0 ? plan : problems.join("; ")
}

/** The turn of a layer in milliseconds. Where it is not a duration, every request is refused. */
export const turnOf = ({ turn }: Defaults): number => time("turn", turn, defaultTurn, () => {})
