/**
 * The YAML file: where it is, and its values under the names that the environment has for them.
 */
import * as Config from "effect/Config"
import type * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as PlatformError from "effect/PlatformError"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import { nearest } from "./configNames.ts"
import { show } from "./configRead.ts"
import { type Entry, fileVariable, type Section, sections } from "./configTable.ts"
import { type NotYaml, parse } from "./configYaml.ts"

/** What is wrong, and where: a variable, or a file with the line or the path in it. */
export interface Problem {
  readonly source: string
  readonly problem: string
}

/** A value of the file, and where it stands. */
export interface Written {
  readonly value: unknown
  readonly source: string
}

/** The values of a file by the variables they stand for, and what is wrong with the file itself. */
export interface File {
  readonly values: ReadonlyMap<string, Written>
  readonly problems: ReadonlyArray<Problem>
}

/** A path that somebody gave: `by` is how, where the path alone does not tell. */
export interface Given {
  readonly path: string
  readonly by?: string | undefined
}

const defaultPaths = ["config.yaml", "config/config.yaml"]

const topOptions: ReadonlyArray<Entry> = sections.flatMap(({ entries, name }) => name === "" ? entries : [])
const mappings: ReadonlyArray<Section> = sections.filter(({ name }) => name !== "")

// Nothing is written there, as in an empty variable of the environment.
const isNothing = (value: unknown): boolean => value === null || value === undefined || value === ""

// Not the value itself: what stands in the wrong place may be anything, a password too.
const kindOf = (value: unknown): string => Array.isArray(value) ? "a list" : `a ${typeof value}`

const keyName = (key: string): string => /^[\w-]{1,80}$/.test(key) ? key : show(key)

const mapping = (
  source: string,
  prefix: string,
  value: unknown,
  known: ReadonlyMap<string, (source: string, value: unknown) => ReadonlyArray<Problem>>
): ReadonlyArray<Problem> => {
  if (isNothing(value)) return []
  if (!Predicate.isObject(value)) return [{ source, problem: `expected a mapping, got ${kindOf(value)}` }]
  return Object.entries(value).flatMap(([key, inner]) => {
    const place = prefix + keyName(key)
    const read = known.get(key)
    return read === undefined
      ? [{ source: place, problem: `unknown key, the nearest known name is "${nearest(key, known.keys())}"` }]
      : read(place, inner)
  })
}

const fromRoot = (path: string, root: unknown): File => {
  const values = new Map<string, Written>()
  const options = (entries: ReadonlyArray<Entry>) =>
    new Map(entries.map(({ key, variable }) => [key, (source: string, value: unknown) => {
      if (!isNothing(value)) values.set(variable, { value, source })
      return []
    }]))
  const problems = mapping(
    path,
    `${path}: `,
    root,
    new Map([
      ...options(topOptions),
      ...mappings.map(({ entries, name }) =>
        [name, (source: string, value: unknown) => mapping(source, `${source}.`, value, options(entries))] as const
      )
    ])
  )
  return { values, problems }
}

const nothing: ReadonlyMap<string, Written> = new Map()

const unparsed = (path: string, { line, problem }: NotYaml): File => ({
  values: nothing,
  problems: [{ source: line === undefined ? path : `${path}, line ${line}`, problem }]
})

const fromText = (path: string, text: string): File =>
  Result.match(parse(text), {
    onFailure: (notYaml) => unparsed(path, notYaml),
    onSuccess: (root) => fromRoot(path, root)
  })

const reasons: { readonly [tag in string]?: string } = {
  NotFound: "there is no such file",
  PermissionDenied: "reading this file is not permitted",
  BadResource: "this is not a file"
}

const unread = ({ by, path }: Given, { reason }: PlatformError.PlatformError): File => ({
  values: nothing,
  problems: [{
    source: by === undefined ? path : `${path} (${by})`,
    problem: reasons[reason._tag] ?? `this file can not be read: ${reason._tag}`
  }]
})

// A directory of that name, or a file where its directory should be, was not meant for us.
const isAbsent = ({ reason }: PlatformError.PlatformError): boolean =>
  reason._tag === "NotFound" || reason._tag === "BadResource"

const readGiven = (fs: FileSystem.FileSystem, given: Given): Effect.Effect<File> =>
  Effect.match(fs.readFileString(given.path), {
    onFailure: (error) => unread(given, error),
    onSuccess: (text) => fromText(given.path, text)
  })

/** The file of this path, else the one that the environment names, else the first of the default ones that exists. */
export const find = Effect.fnUntraced(function*(
  path: string | undefined,
  environment: ConfigProvider.ConfigProvider
): Effect.fn.Return<File, Config.ConfigError, FileSystem.FileSystem> {
  const fs = yield* FileSystem.FileSystem
  if (path !== undefined) return yield* readGiven(fs, { path })
  const named = yield* Config.option(Config.String(fileVariable)).parse(environment)
  if (Option.isSome(named)) return yield* readGiven(fs, { path: named.value, by: fileVariable })
  for (const path of defaultPaths) {
    const file = yield* Effect.match(fs.readFileString(path), {
      onFailure: (error) => isAbsent(error) ? Option.none() : Option.some(unread({ path }, error)),
      onSuccess: (text) => Option.some(fromText(path, text))
    })
    if (Option.isSome(file)) return file.value
  }
  return { values: nothing, problems: [] }
})
