/**
 * From what is written to values: a section of the table as a `Config`, and what to say of a value that is wrong.
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Record from "effect/Record"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import type { Entry, Section } from "./configTable.ts"

/** What is wrong with the value of one option. */
export interface Wrong {
  readonly entry: Entry
  readonly problem: string
}

const longestShown = 80

// An address may be a URL with credentials in it.
const withoutCredentials = (text: string) => text.replace(/\/\/[^/\s]*@/g, "//<redacted>@")

const cut = (text: string): string => text.length > longestShown ? `${text.slice(0, longestShown)}...` : text

const showEntry = (value: unknown): string => {
  if (typeof value === "string") return JSON.stringify(cut(withoutCredentials(value)))
  if (Array.isArray(value)) return "a list"
  return Predicate.isObject(value) ? "a mapping" : String(value)
}

/** A value as it may stand in a message. */
export const show = (value: unknown): string =>
  Array.isArray(value) ? cut(`[${value.slice(0, longestShown).map(showEntry).join(", ")}]`) : showEntry(value)

const tell = (entry: Entry, value: unknown): string => {
  const annotations = Schema.resolveAnnotations(entry.schema)
  const expected = `expected ${annotations?.expected ?? "another value"}`
  return annotations?.["secret"] === true ? expected : `${expected}, got ${show(value)}`
}

const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

/** What is written, by the variables it is written for. */
export type Written = { readonly [variable: string]: unknown }

/** The values of a section, or everything that is wrong with them. What is not written is left out. */
export const decode = <A>(section: Section<A>, written: Written): Result.Result<A, ReadonlyArray<Wrong>> => {
  const fields = Object.fromEntries(
    section.entries.flatMap(({ field, variable }) => variable in written ? [[field, written[variable]]] : [])
  )
  return Result.mapError(Schema.decodeUnknownResult(section.schema, { errors: "all" })(fields), ({ issue }) => {
    const wrong = new Set(issuesOf(issue).issues.map(({ path }) => path?.[0]))
    return section.entries
      .filter(({ field }) => wrong.has(field))
      .map((entry) => ({ entry, problem: tell(entry, fields[entry.field]) }))
  })
}

const asWritten = Schema.Union([Schema.String, Schema.Array(Schema.String)])

/** What is written for one variable, as it is. */
export const raw = (variable: string): Config.Config<Option.Option<typeof asWritten.Type>> =>
  Config.option(Config.schema(asWritten, [variable]))

const rawAll = (sections: ReadonlyArray<Section>): Config.Config<Written> =>
  Config.map(
    Config.all(Record.fromEntries(
      sections.flatMap(({ entries }) => entries.map(({ variable }) => [variable, raw(variable)]))
    )),
    Record.getSomes
  )

const configError = (wrong: ReadonlyArray<Wrong>): Config.ConfigError => {
  const [first = new SchemaIssue.InvalidValue(), ...others] = wrong.map(({ entry, problem }) =>
    new SchemaIssue.Pointer([entry.variable], new SchemaIssue.InvalidValue({ message: problem }))
  )
  return new Config.ConfigError(
    new Schema.SchemaError(new SchemaIssue.Composite(asWritten.ast, [first, ...others]))
  )
}

/** A section as a `Config`. Everything that is wrong with it is told together. */
export const config = <A>(section: Section<A>): Config.Config<A> =>
  Config.mapEffect(
    rawAll([section]),
    (written) => Effect.fromResult(Result.mapError(decode(section, written), configError))
  )

/** Fails with everything that is wrong with any of the sections. */
export const check = (sections: ReadonlyArray<Section>): Config.Config<void> =>
  Config.mapEffect(rawAll(sections), (written) => {
    const wrong = sections.flatMap((section) =>
      Result.match(decode(section, written), { onFailure: (wrong) => wrong, onSuccess: () => [] })
    )
    return wrong.length === 0 ? Effect.void : Effect.fail(configError(wrong))
  })
