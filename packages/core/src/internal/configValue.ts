/**
 * The kinds of values a configuration holds: how each is written, and what to tell whoever wrote it otherwise. The
 * encoded side of each is what an environment variable or a YAML file may hold.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"

/** What the table of the configuration says of a value. */
export interface Description<T> {
  /** A sentence for people. */
  readonly description: string
  /** What counts when nothing is written; left out when that is no value but a behaviour, told by the description. */
  readonly default?: T | undefined
}

/** A value that may be left out. `Encoded` is what it may be written as. */
export type Field<T, Encoded = unknown> = Schema.optionalKey<Schema.Codec<T, Encoded>>

// `title` is the type as people read it, `expected` ends the sentence "expected ...". A secret is not shown.
interface Kind<T> extends Description<T> {
  readonly title: string
  readonly expected: string
  readonly secret?: true | undefined
}

const field = <T, Encoded>(codec: Schema.Codec<T, Encoded>, kind: Kind<T>): Field<T, Encoded> =>
  Schema.optionalKey(codec.annotate({ ...kind }))

const decodeWith = <T, Encoded>(parse: (written: Encoded) => Option.Option<T>, write: (value: T) => Encoded) =>
  SchemaTransformation.transformEffect<T, Encoded>({
    // The message is told by the table, which also knows whether the value may be shown.
    decode: (written) => Effect.mapError(Effect.fromOption(parse(written)), () => new SchemaIssue.InvalidValue()),
    encode: (value) => Effect.succeed(write(value))
  })

const quoted = "text, in quotes where YAML would read a number or a boolean"

export const text = (about: Description<string>): Field<string, string> =>
  field(Schema.NonEmptyString, { title: "text", expected: quoted, ...about })

export const secret = (
  about: Description<Redacted.Redacted<string>>
): Field<Redacted.Redacted<string>, string> =>
  field(Schema.RedactedFromValue(Schema.NonEmptyString), {
    title: "secret text",
    expected: quoted,
    secret: true,
    ...about
  })

export const choice = <const Values extends ReadonlyArray<string>>(
  values: Values,
  about: Description<Values[number]>
): Field<Values[number], string> =>
  field(Schema.Literals(values), {
    title: values.map((value) => `\`${value}\``).join(", "),
    expected: `one of ${values.join(", ")}`,
    ...about
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

export const flag = (about: Description<boolean>): Field<boolean, Scalar> =>
  field(
    scalar.pipe(Schema.decodeTo(
      Schema.Boolean,
      decodeWith<boolean, Scalar>(
        (written) => Option.fromUndefinedOr(booleans.get(String(written).trim().toLowerCase())),
        String
      )
    )),
    { title: "boolean", expected: "true, false, 1, 0, yes, no, on or off", ...about }
  )

export const integer = (
  range: { readonly minimum: number, readonly maximum: number },
  about: Description<number>
): Field<number, Scalar> => {
  const endless = range.maximum === Number.MAX_SAFE_INTEGER
  return field(
    scalar.pipe(Schema.decodeTo(
      Schema.Int.check(Schema.isBetween(range)),
      decodeWith<number, Scalar>(
        (written) => /^\s*[+-]?\d+\s*$/.test(String(written)) ? Option.some(Number(written)) : Option.none(),
        String
      )
    )),
    {
      title: "integer",
      expected: `a whole number ${
        endless ? `of at least ${range.minimum}` : `from ${range.minimum} to ${range.maximum}`
      }`,
      ...about
    }
  )
}

// No entry of these lists, all of them addresses, holds a comma or white space: one with them is two that ran together.
const entry = Schema.String.check(Schema.isPattern(/^[^\s,]+$/))
const written = Schema.Union([Schema.String, Schema.Array(Schema.String)])

export const list = (
  about: Description<ReadonlyArray<string>>
): Field<ReadonlyArray<string>, string | ReadonlyArray<string>> =>
  field(
    written.pipe(Schema.decodeTo(
      Schema.Array(entry).check(Schema.isNonEmpty()),
      SchemaTransformation.transform<ReadonlyArray<string>, string | ReadonlyArray<string>>({
        decode: (list) => (typeof list === "string" ? list.split(",") : list).map((item) => item.trim()),
        encode: (list) => list.join(",")
      })
    )),
    {
      title: "list",
      expected: "addresses as a list or separated by commas, none of them empty or with white space in it",
      ...about
    }
  )

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

const writeDuration = (duration: Duration.Duration): string => {
  if (!Duration.isFinite(duration)) return "Infinity"
  const nanos = Duration.toNanosUnsafe(duration)
  const [unit, scale] = units.find(([, scale]) => nanos % scale === 0n && nanos >= scale) ?? ["ms", 1n]
  return `${nanos / scale}${unit}`
}

// More can not be meant, and no server counts so far.
const longest = Duration.days(36_525)

export const duration = (
  range: { readonly zero?: true | undefined, readonly infinite?: true | undefined },
  about: Description<Duration.Duration>
): Field<Duration.Duration, string> => {
  const inRange = (duration: Duration.Duration) =>
    Duration.isFinite(duration)
      ? Duration.isLessThanOrEqualTo(duration, longest) &&
        (Duration.isPositive(duration) || (range.zero === true && Duration.isZero(duration)))
      : range.infinite === true && Duration.isPositive(duration)
  return field(
    Schema.String.pipe(Schema.decodeTo(
      Schema.Duration.check(Schema.makeFilter(inRange)),
      decodeWith(parseDuration, writeDuration)
    )),
    {
      title: "duration",
      expected: "a duration such as 10s, 1m30s, 500ms, 1.5h or \"10 seconds\"" +
        (range.zero === true ? "" : ", longer than zero") +
        (range.infinite === true ? ", or Infinity" : ""),
      ...about
    }
  )
}
