/**
 * What a declaration of options is made of, and how the values that are written for them are read.
 */
import * as Config from "effect/Config"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Record from "effect/Record"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { isServiceLink } from "./environment.ts"
import { hint } from "./names.ts"
import { show } from "./show.ts"
import type { Kind } from "./value.ts"

/** One variable of the environment and one key of the file. */
export interface Part {
  readonly kind: Kind
  /** A sentence for people. */
  readonly description: string
  /** The default as it would be written; none where that is no value but a behaviour, which the description tells. */
  readonly default?: string | undefined
}

/** What is written for an option, by the suffixes of its parts. */
export type Written = { readonly [suffix: string]: unknown }

/** What is wrong, and with which part. */
export interface Wrong {
  readonly suffix: string
  readonly problem: string
}

/**
 * One option. `In` is what the configuration makes of what is written, `Out` is what a backend gets, whether it was
 * written or given by code.
 */
export interface Field<out In = unknown, out Out = unknown, out About = unknown> {
  readonly about: About & { readonly key?: string | undefined, readonly default?: unknown }
  /** By suffix; "" is the option's own name. */
  readonly parts: { readonly [suffix: string]: Part }
  /** At least one part is written. */
  readonly decode: (written: Written) => Result.Result<In, ReadonlyArray<Wrong>>
  readonly read: (input: unknown) => Result.Result<Out, string>
}

/** A part with its names. */
export interface Entry extends Part {
  /** In the options of the backend. */
  readonly option: string
  readonly suffix: string
  /** In the file, within the mapping of the backend. */
  readonly key: string
  /** In the environment. */
  readonly variable: string
}

/** What is wrong with what is written for a variable, or for the key of the file that stands for it. */
export interface Misfit {
  readonly variable: string
  readonly problem: string
}

/** Options that belong together. `name` is their mapping in the file; "" for those at its top. */
export interface Section {
  readonly name: string
  readonly entries: ReadonlyArray<Entry>
  /** Everything that is wrong with what is written, by variables. */
  readonly check: (written: { readonly [variable: string]: unknown }) => ReadonlyArray<Misfit>
}

/** What a value that is not of its kind is told. */
export const mismatch = ({ expected, secret }: Kind, written: unknown): string =>
  secret ? `expected ${expected}` : `expected ${expected}, got ${show(written)}`

/** Reads what is written as a value of the kind. */
export const decodePart = <T>(kind: Kind<T>, suffix: string, written: unknown): Result.Result<T, Wrong> =>
  Result.mapError(
    Schema.decodeUnknownResult(kind.schema)(written),
    () => ({ suffix, problem: mismatch(kind, written) })
  )

const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

/** The name in the environment. */
export const variable = (...names: ReadonlyArray<string>): string =>
  ["dlock", ...names].filter((name) => name !== "").join("_").replace(/[^A-Za-z0-9]+/g, "_").toUpperCase()

/** The entries of a field. */
export const entriesOf = (section: string, option: string, { about, parts }: Field): ReadonlyArray<Entry> =>
  Object.entries(parts).map(([suffix, part]) => {
    const own = about.key ?? snakeCase(option)
    const key = suffix === "" ? own : `${own}_${snakeCase(suffix)}`
    return { ...part, option, suffix, key, variable: variable(section, key) }
  })

/** What is written for one option: the values of its parts that are written. */
const writtenFor = (entries: ReadonlyArray<Entry>, written: { readonly [variable: string]: unknown }): Written =>
  Object.fromEntries(
    entries.flatMap(({ suffix, variable }) => variable in written ? [[suffix, written[variable]]] : [])
  )

/** Decodes what is written for one option and checks it as an option of code is; `none`: nothing is written. */
export const decodeField = <In>(
  field: Field<In>,
  entries: ReadonlyArray<Entry>,
  written: { readonly [variable: string]: unknown }
): Result.Result<Option.Option<In>, ReadonlyArray<Misfit>> => {
  const own = writtenFor(entries, written)
  const [first] = entries.filter(({ suffix }) => suffix in own)
  if (first === undefined) return Result.succeed(Option.none())
  const misfit = ({ problem, suffix }: Wrong): Misfit => ({
    variable: (entries.find((entry) => entry.suffix === suffix) ?? first).variable,
    problem
  })
  return Result.match(field.decode(own), {
    onFailure: (wrong) => Result.fail(wrong.map(misfit)),
    onSuccess: (value) =>
      Result.match(field.read(value), {
        onFailure: (problem) => Result.fail([misfit({ suffix: first.suffix, problem })]),
        onSuccess: () => Result.succeed(Option.some(value))
      })
  })
}

/** Reads the options that code gave: what they are set to, and everything that is wrong with them. */
export const readOptions = (fields: { readonly [option: string]: Field }, options: unknown) => {
  if (!Predicate.isObject(options) || Array.isArray(options)) {
    return { problems: [`expected an object of options, got ${show(options)}`], settings: {} }
  }
  const problems = Object.keys(options)
    .filter((name) => !Object.hasOwn(fields, name))
    .map((name) => `unknown option ${show(name)}${hint(name, Object.keys(fields))}`)
  const settings: { [option: string]: unknown } = {}
  for (const [name, { about, read }] of Object.entries(fields)) {
    const given = Predicate.hasProperty(options, name) ? options[name] : undefined
    const input = given === undefined ? about.default : given
    settings[name] = undefined
    if (input === undefined) continue
    Result.match(read(input), {
      onFailure: (problem) => problems.push(`${name}: ${problem}`),
      onSuccess: (value) => settings[name] = value
    })
  }
  return { problems, settings }
}

const asWritten = Schema.Union([Schema.String, Schema.Array(Schema.String)])

/** What is written for one variable, as it is. */
export const raw = (variable: string): Config.Config<Option.Option<typeof asWritten.Type>> =>
  Config.map(
    Config.option(Config.schema(asWritten, [variable])),
    Option.filter((value) => typeof value !== "string" || !isServiceLink({ name: variable, value }))
  )

/** What is written for some entries, by variables. */
export const rawAll = (
  entries: ReadonlyArray<Entry>
): Config.Config<{ readonly [variable: string]: typeof asWritten.Type }> =>
  Config.map(
    Config.all(Record.fromEntries(entries.map(({ variable }) => [variable, raw(variable)]))),
    Record.getSomes
  )

/** Everything that is wrong with some variables, as one error. */
export const configError = (misfits: ReadonlyArray<Misfit>): Config.ConfigError => {
  const [first = new SchemaIssue.InvalidValue(), ...others] = misfits.map(({ problem, variable }) =>
    new SchemaIssue.Pointer([variable], new SchemaIssue.InvalidValue({ message: problem }))
  )
  return new Config.ConfigError(
    new Schema.SchemaError(new SchemaIssue.Composite(asWritten.ast, [first, ...others]))
  )
}
