/**
 * The kinds of values that a configuration holds: how each is written in a variable of the environment or in a file,
 * and what a message says it has to be.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"

/** A kind of values. The encoded side of the schema is what a variable or a YAML file may hold. */
export interface Kind<out T = unknown> {
  /** The type as people read it. */
  readonly title: string
  /** Ends the sentence "expected ...". */
  readonly expected: string
  /** The value is shown nowhere. */
  readonly secret: boolean
  readonly schema: Schema.Codec<T, unknown>
}

const decodeWith = <T, Encoded>(parse: (written: Encoded) => Option.Option<T>, write: (value: T) => Encoded) =>
  SchemaTransformation.transformEffect<T, Encoded>({
    // What it has to be is said where it is known whether the value may be shown.
    decode: (written) => Effect.mapError(Effect.fromOption(parse(written)), () => new SchemaIssue.InvalidValue()),
    encode: (value) => Effect.succeed(write(value))
  })

const quoted = "text, in quotes where YAML would read a number or a boolean"

export const text: Kind<string> = { title: "text", expected: quoted, secret: false, schema: Schema.NonEmptyString }

export const secret: Kind<Redacted.Redacted> = {
  title: "secret text",
  expected: quoted,
  secret: true,
  schema: Schema.RedactedFromValue(Schema.NonEmptyString)
}

export const oneOf = <const Value extends string>(values: ReadonlyArray<Value>): Kind<Value> => ({
  title: values.map((value) => `\`${value}\``).join(", "),
  expected: `one of ${values.join(", ")}`,
  secret: false,
  schema: Schema.Literals(values)
})

const scalar = Schema.Union([Schema.String, Schema.Number, Schema.Boolean])
type Scalar = typeof scalar.Type

const booleans = new Map([
  ["true", true],
  ["yes", true],
  ["on", true],
  ["1", true],
  ["false", false],
  ["no", false],
  ["off", false],
  ["0", false]
])

export const flag: Kind<boolean> = {
  title: "boolean",
  expected: "true, false, 1, 0, yes, no, on or off",
  secret: false,
  schema: scalar.pipe(Schema.decodeTo(
    Schema.Boolean,
    decodeWith<boolean, Scalar>(
      (written) => Option.fromUndefinedOr(booleans.get(String(written).trim().toLowerCase())),
      String
    )
  ))
}

/** The whole numbers between two, both included. */
export interface Range {
  readonly minimum: number
  readonly maximum?: number | undefined
}

export const integer = ({ maximum = Number.MAX_SAFE_INTEGER, minimum }: Range): Kind<number> => ({
  title: "integer",
  expected: `a whole number ${
    maximum === Number.MAX_SAFE_INTEGER ? `of at least ${minimum}` : `from ${minimum} to ${maximum}`
  }`,
  secret: false,
  schema: scalar.pipe(Schema.decodeTo(
    Schema.Int.check(Schema.isBetween({ minimum, maximum })),
    decodeWith<number, Scalar>(
      (written) => /^\s*[+-]?\d+\s*$/.test(String(written)) ? Option.some(Number(written)) : Option.none(),
      String
    )
  ))
})

// No entry of these lists, all of them addresses, holds a comma or white space: one with them is two that ran together.
const entry = Schema.String.check(Schema.isPattern(/^[^\s,]+$/))
const written = Schema.Union([Schema.String, Schema.Array(Schema.String)])

/** The entries of a list that is given as one text, or as a list. */
export const split = (list: string | ReadonlyArray<string>): ReadonlyArray<string> =>
  (typeof list === "string" ? list.split(",") : list).map((item) => item.trim())

export const list: Kind<ReadonlyArray<string>> = {
  title: "list",
  expected: "addresses as a list or separated by commas, none of them empty or with white space in it",
  secret: false,
  schema: written.pipe(Schema.decodeTo(
    Schema.Array(entry).check(Schema.isNonEmpty()),
    SchemaTransformation.transform<ReadonlyArray<string>, string | ReadonlyArray<string>>({
      decode: split,
      encode: (list) => list.join(",")
    })
  ))
}

const units: ReadonlyArray<readonly [unit: string, nanos: bigint]> = [
  ["h", 3_600_000_000_000n],
  ["m", 60_000_000_000n],
  ["s", 1_000_000_000n],
  ["ms", 1_000_000n],
  ["us", 1000n],
  ["µs", 1000n],
  ["ns", 1n]
]
const nanosOf = new Map(units)
const compound = /^(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|µs|ns))+$/
const part = /(\d+)(?:\.(\d+))?([a-zµ]+)/g
// Long enough for every duration that means something, short enough that its digits are read at once.
const longestText = 64

const fromNanos = (nanos: bigint): Duration.Duration =>
  nanos % 1_000_000n === 0n && nanos <= BigInt(Number.MAX_SAFE_INTEGER)
    ? Duration.millis(Number(nanos / 1_000_000n))
    : Duration.nanos(nanos)

const parseCompound = (text: string): Duration.Duration => {
  let nanos = 0n
  for (const [, whole = "", fraction = "", unit = ""] of text.matchAll(part)) {
    const scale = nanosOf.get(unit) ?? 0n
    nanos += BigInt(whole) * scale + BigInt(`0${fraction}`) * scale / 10n ** BigInt(fraction.length)
  }
  return fromNanos(nanos)
}

const readEffectForm = Schema.decodeOption(Schema.DurationFromString)

/** "10s", "1m30s", "500ms", "1.5h", and what Effect reads: "10 seconds", "Infinity". */
export const parseDuration = (written: string): Option.Option<Duration.Duration> => {
  const text = written.trim()
  if (text.length > longestText) return Option.none()
  if (compound.test(text)) return Option.some(parseCompound(text))
  return readEffectForm(text)
}

/** A duration as it would be written. */
export const writeDuration = (input: Duration.Input): string => {
  const duration = Duration.fromInputUnsafe(input)
  if (!Duration.isFinite(duration)) return "Infinity"
  const nanos = Duration.toNanosUnsafe(duration)
  const [unit, scale] = units.find(([, scale]) => nanos % scale === 0n && nanos >= scale) ?? ["ms", 1n]
  return `${nanos / scale}${unit}`
}

// More cannot be meant, and no server counts so far.
const longest = Duration.days(36_525)

/** Which durations there may be. */
export interface DurationRange {
  /** Zero is one of them. Default: no. */
  readonly zero?: boolean | undefined
  /** `Infinity` is one of them. Default: no. */
  readonly infinite?: boolean | undefined
  /** The shortest one. Default: any that is longer than zero. */
  readonly minimum?: Duration.Input | undefined
  /** The longest one. Default: a hundred years. */
  readonly maximum?: Duration.Input | undefined
}

/** Whether a duration is in the range, and the words for the range. */
export const durationRange = ({ infinite = false, maximum = longest, minimum, zero = false }: DurationRange) => {
  const highest = Duration.fromInputUnsafe(maximum)
  const lowest = minimum === undefined ? undefined : Duration.fromInputUnsafe(minimum)
  const words = [
    lowest !== undefined ? `of at least ${writeDuration(lowest)}` : zero ? "" : "longer than zero",
    maximum === longest ? "" : `at most ${writeDuration(highest)}`,
    infinite ? "or Infinity" : ""
  ]
  return {
    contains: (duration: Duration.Duration): boolean => {
      if (!Duration.isFinite(duration)) return infinite && Duration.isPositive(duration)
      if (Duration.isGreaterThan(duration, highest)) return false
      if (Duration.isZero(duration)) return zero
      return Duration.isPositive(duration) && (lowest === undefined || !Duration.isLessThan(duration, lowest))
    },
    expected: ["a duration such as 10s, 1m30s, 500ms, 1.5h or \"10 seconds\"", ...words.filter((word) => word !== "")]
      .join(", ")
  }
}

export const duration = (range: DurationRange): Kind<Duration.Duration> => {
  const { contains, expected } = durationRange(range)
  return {
    title: "duration",
    expected,
    secret: false,
    schema: Schema.String.pipe(Schema.decodeTo(
      Schema.Duration.check(Schema.makeFilter(contains)),
      decodeWith<Duration.Duration, string>(parseDuration, writeDuration)
    ))
  }
}
