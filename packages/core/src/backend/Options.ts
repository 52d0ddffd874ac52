/**
 * The options of a backend, declared once: names, types, defaults and a sentence for each. From the declaration comes
 * how they are read from code, from the environment and from a file, and the table in the README.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as declaration from "../internal/config/declaration.ts"
import { show } from "../internal/config/show.ts"
import { certificateParts, decodeTls } from "../internal/config/tls.ts"
import * as value from "../internal/config/value.ts"
import { LockBackendError } from "../LockError.ts"
import * as address from "./Address.ts"
import * as Secret from "./Secret.ts"
import * as Tls from "./Tls.ts"

/**
 * What is said of an option.
 *
 * @category models
 * @since 0.1.0
 */
export interface About<Default = unknown> {
  /** A sentence for people. */
  readonly description: string
  /** The name in the file and, in capitals, in the environment. Default: the option's name in snake case. */
  readonly key?: string | undefined
  /** What counts where nothing is given; left out where that is no value but a behaviour, told by the description. */
  readonly default?: Default | undefined
}

/**
 * One option of a declaration. `In` is what the configuration makes of what is written, `Out` is what the backend
 * gets, whether it was written or given by code.
 *
 * @category models
 * @since 0.1.0
 */
export type Field<In = unknown, Out = unknown, A = About> = declaration.Field<In, Out, A>

/**
 * The fields of a declaration, by the names of the options.
 *
 * @category models
 * @since 0.1.0
 */
export interface Fields {
  readonly [option: string]: Field
}

/**
 * The options that the configuration gives: those that are written.
 *
 * @category models
 * @since 0.1.0
 */
export type Configured<F extends Fields> = {
  readonly [K in keyof F]?: F[K] extends declaration.Field<infer In, unknown, unknown> ? In : never
}

/**
 * The options as a backend uses them: checked, each with its default if it has one.
 *
 * @category models
 * @since 0.1.0
 */
export type Settings<F extends Fields> = {
  readonly [K in keyof F]: F[K] extends declaration.Field<unknown, infer Out, infer A>
    ? A extends { readonly default: {} } ? Out : Out | undefined
    : never
}

/**
 * A host and a port, and the scheme that was written before them.
 *
 * @category models
 * @since 0.1.0
 */
export type Address = address.Address

/**
 * An address as people read it: `host:port`, `[ipv6]:port`.
 *
 * @category combinators
 * @since 0.1.0
 */
export const formatAddress: (address: Pick<Address, "host" | "port">) => string = address.format

/** An option with one part. `shown` is its default as it would be written; an empty one is nothing to write. */
const single = <In, Out, A extends About>(
  about: A,
  kind: value.Kind<In>,
  read: (input: unknown) => Result.Result<Out, string>,
  shown: string | undefined = about.default === undefined ? undefined : String(about.default)
): Field<In, Out, A> => ({
  about,
  parts: { "": { kind, description: about.description, default: shown === "" ? undefined : shown } },
  decode: ({ "": written }) => Result.mapError(declaration.decodePart(kind, "", written), (wrong) => [wrong]),
  read
})

const expected = (what: string, input: unknown): string => `expected ${what}, got ${show(input)}`

/**
 * A text.
 *
 * @category fields
 * @since 0.1.0
 */
export const text = <const A extends About<string>>(about: A): Field<string, string, A> =>
  single(
    about,
    value.text,
    (input) => typeof input === "string" ? Result.succeed(input) : Result.fail(expected("a text", input))
  )

/**
 * One of some texts.
 *
 * @category fields
 * @since 0.1.0
 */
export const oneOf = <const Value extends string, const A extends About<Value>>(
  values: ReadonlyArray<Value>,
  about: A
): Field<Value, Value, A> =>
  single(about, value.oneOf(values), (input) =>
    Result.fromNullishOr(
      values.find((value) => value === input),
      () => expected(`one of ${values.map((value) => JSON.stringify(value)).join(", ")}`, input)
    ))

/**
 * `true` or `false`.
 *
 * @category fields
 * @since 0.1.0
 */
export const flag = <const A extends About<boolean>>(about: A): Field<boolean, boolean, A> =>
  single(
    about,
    value.flag,
    (input) => typeof input === "boolean" ? Result.succeed(input) : Result.fail(expected("true or false", input))
  )

/**
 * A whole number, from `minimum` to `maximum`.
 *
 * @category fields
 * @since 0.1.0
 */
export const integer = <const A extends About<number>>(about: A & value.Range): Field<number, number, A> => {
  const kind = value.integer(about)
  const { maximum = Number.MAX_SAFE_INTEGER, minimum } = about
  return single(
    about,
    kind,
    (input) =>
      typeof input === "number" && Number.isInteger(input) && input >= minimum && input <= maximum
        ? Result.succeed(input)
        : Result.fail(expected(kind.expected, input))
  )
}

/** A duration as code gives it, or as it is written. */
const toDuration = (input: unknown): Option.Option<Duration.Duration> => {
  if (typeof input === "string") return value.parseDuration(input)
  if (Duration.isDuration(input)) return Option.some(input)
  if (typeof input === "number") return Number.isNaN(input) ? Option.none() : Option.some(Duration.millis(input))
  return typeof input === "bigint" ? Option.some(Duration.nanos(input)) : Option.none()
}

/**
 * A duration, which a backend gets in milliseconds. Longer than zero and finite, unless `zero` or `infinite` allow it.
 *
 * @category fields
 * @since 0.1.0
 */
export const duration = <const A extends About<Duration.Input>>(
  about: A & value.DurationRange
): Field<Duration.Duration, number, A> => {
  const { contains, expected: words } = value.durationRange(about)
  return single(about, value.duration(about), (input) =>
    Option.match(Option.filter(toDuration(input), contains), {
      onNone: () => Result.fail(expected(words, input)),
      onSome: (duration) => Result.succeed(Duration.toMillis(duration))
    }), about.default === undefined ? undefined : value.writeDuration(about.default))
}

const isTexts = (input: unknown): input is ReadonlyArray<string> =>
  Array.isArray(input) && input.every((item) => typeof item === "string")

/**
 * Addresses, at least one: `host`, `host:port` or `[ipv6]:port`, as a list or as one text with commas.
 *
 * @category fields
 * @since 0.1.0
 */
export const addresses = <const A extends About<ReadonlyArray<string>>>(
  about: A & {
    /** The port of an address that names none. */
    readonly port: number
    /** What may stand before an address, as `https` does in `https://host`. Default: nothing may. */
    readonly schemes?: ReadonlyArray<string> | undefined
  }
): Field<ReadonlyArray<string>, readonly [Address, ...ReadonlyArray<Address>], A> =>
  single(about, value.list, (input) => {
    if (typeof input !== "string" && !isTexts(input)) return Result.fail(expected("a list of addresses", input))
    const [first, ...others] = value.split(input)
    if (first === undefined) return Result.fail("expected at least one address")
    return Result.flatMap(
      address.parse(first, about),
      (head) =>
        Result.map(Result.all(others.map((text) => address.parse(text, about))), (rest) => [head, ...rest] as const)
    )
  })

/**
 * A password or the like: a text, a `Redacted` one, or an effect that is run at each connect.
 *
 * @category fields
 * @since 0.1.0
 */
export const secret = <const A extends About<never>>(about: A): Field<Redacted.Redacted, Secret.Secret, A> =>
  single(about, value.secret, Secret.read)

/**
 * Encrypted connections: `true`, `false`, or certificates. Written as one variable for each of them:
 * `DLOCK_REDIS_TLS`, `DLOCK_REDIS_TLS_CA`, `_CERT`, `_KEY`, `_PASSPHRASE`, `_SERVER_NAME`. `default: false` where nothing
 * else says whether there is TLS.
 *
 * @category fields
 * @since 0.1.0
 */
export const tls = <const A extends About<false>>(about: A): Field<Tls.Input, Tls.Tls | undefined, A> => ({
  about,
  parts: {
    "": { kind: value.flag, description: about.description, default: about.default === false ? "false" : undefined },
    ...certificateParts
  },
  decode: decodeTls,
  read: Tls.read
})

/**
 * An option of its own kind, which the configuration writes as a text: `written` makes of the text what code would
 * give, and `read` checks that and makes of it what the backend uses, or says what is wrong with it.
 *
 * @category fields
 * @since 0.1.0
 */
export const custom = <In, Out, const A extends About<In>>(
  about: A & {
    readonly written: (text: string) => In
    readonly read: (input: unknown) => Result.Result<Out, string>
    /** The default as it would be written. */
    readonly shown?: string | undefined
  }
): Field<In, Out, A> => {
  const field = single(about, value.text, about.read, about.shown)
  return { ...field, decode: (written) => Result.map(field.decode(written), about.written) }
}

/**
 * The options of one backend.
 *
 * @category models
 * @since 0.1.0
 */
export interface Declaration<out In = unknown, out Out = unknown> extends declaration.Section {
  /** The options that the `ConfigProvider` of the context has, as code would give them. */
  readonly config: Config.Config<In>
  /** Checks the options that code gave, and adds the defaults. Fails with everything that is wrong with them. */
  readonly parse: (options: unknown) => Effect.Effect<Out, LockBackendError>
}

/**
 * Declares the options of the backend of this name, which are read from `DLOCK_<NAME>_*` and the mapping `name` of the
 * file.
 *
 * @category constructors
 * @since 0.1.0
 */
export function declare<const F extends Fields>(name: string, fields: F): Declaration<Configured<F>, Settings<F>>
export function declare(name: string, fields: Fields): Declaration {
  const options = Object.entries(fields).map(([option, field]) => ({
    option,
    field,
    entries: declaration.entriesOf(name, option, field)
  }))
  const entries = options.flatMap(({ entries }) => entries)
  const decode = (written: { readonly [variable: string]: unknown }) => {
    const misfits: Array<declaration.Misfit> = []
    const given: { [option: string]: unknown } = {}
    for (const { entries, field, option } of options) {
      Result.match(declaration.decodeField(field, entries, written), {
        onFailure: (wrong) => misfits.push(...wrong),
        onSuccess: Option.map((value) => given[option] = value)
      })
    }
    return { given, misfits }
  }
  return {
    name,
    entries,
    check: (written) => decode(written).misfits,
    config: Config.mapEffect(declaration.rawAll(entries), (written) => {
      const { given, misfits } = decode(written)
      return misfits.length === 0 ? Effect.succeed(given) : Effect.fail(declaration.configError(misfits))
    }),
    parse: (given) =>
      Effect.suspend(() => {
        const { problems, settings } = declaration.readOptions(fields, given)
        return problems.length === 0
          ? Effect.succeed(settings)
          : Effect.fail(
            new LockBackendError({
              backend: name,
              operation: "connect",
              reason: "Options",
              detail: problems.join("; ")
            })
          )
      })
  }
}
