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
import { type Entry, type Section, variable } from "./declaration.ts"
import { nearest, nearMiss } from "./names.ts"
import { show } from "./show.ts"
import { fileVariable } from "./table.ts"
import { type NotYaml, parse } from "./yaml.ts"

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

// Nothing is written there, as in an empty variable of the environment.
const isNothing = (value: unknown): boolean => value === null || value === undefined || value === ""

// Not the value itself: what stands in the wrong place may be anything, a password too.
const kindOf = (value: unknown): string => Array.isArray(value) ? "a list" : `a ${typeof value}`

const keyName = (key: string): string => /^[\w-]{1,80}$/.test(key) ? key : show(key)

const unknownKey = (source: string, nearest: string | undefined): Problem => ({
  source,
  problem: nearest === undefined ? "unknown key" : `unknown key, the nearest known name is "${nearest}"`
})

/** What is read of a file: these sections, in the mapping of this name if there is one, or only there. */
export interface Wanted {
  readonly sections: ReadonlyArray<Section>
  readonly section: string | undefined
}

const defaultSection = "dlock"

/** Collects what is written, and what is wrong, as the file is walked through. */
interface Reading {
  readonly values: Map<string, Written>
  readonly problems: Array<Problem>
}

const readOption = ({ values }: Reading, variable: string, source: string, value: unknown): void => {
  if (!isNothing(value)) values.set(variable, { value, source })
}

const readMapping = (reading: Reading, source: string, entries: ReadonlyArray<Entry>, value: unknown): void => {
  if (isNothing(value)) return
  if (!Predicate.isObject(value)) {
    reading.problems.push({ source, problem: `expected a mapping, got ${kindOf(value)}` })
    return
  }
  for (const [key, inner] of Object.entries(value)) {
    const place = `${source}.${keyName(key)}`
    const entry = entries.find((entry) => entry.key === key)
    if (entry === undefined) {
      reading.problems.push(unknownKey(place, nearest(key, entries.map(({ key }) => key))))
    } else {
      readOption(reading, entry.variable, place, inner)
    }
  }
}

// A backend that was not passed, or no concern of ours: the reader of the variables that it stands for finds them.
const readForeign = (reading: Reading, source: string, name: string, value: unknown): void => {
  if (!Predicate.isObject(value)) return
  for (const [key, inner] of Object.entries(value)) {
    if (Predicate.isObject(inner)) continue
    readOption(reading, variable(name, key), `${source}.${keyName(key)}`, inner)
  }
}

const readRoot = (
  reading: Reading,
  prefix: string,
  root: { readonly [key: string]: unknown },
  { own, sections }: { readonly own: boolean, readonly sections: ReadonlyArray<Section> }
): void => {
  const options = sections.flatMap(({ entries, name }) => name === "" ? entries : [])
  const mappings = sections.filter(({ name }) => name !== "")
  const names = [...options.map(({ key }) => key), ...mappings.map(({ name }) => name)]
  for (const [key, value] of Object.entries(root)) {
    const place = prefix + keyName(key)
    const option = options.find((option) => option.key === key)
    const section = mappings.find(({ name }) => name === key)
    const slip = nearMiss(key, own ? names : [...names, defaultSection])
    if (option !== undefined) {
      readOption(reading, option.variable, place, value)
    } else if (section !== undefined) {
      readMapping(reading, place, section.entries, value)
    } else if (slip !== undefined || (own && !Predicate.isObject(value))) {
      reading.problems.push(unknownKey(place, slip ?? nearest(key, names)))
    } else {
      readForeign(reading, place, key, value)
    }
  }
}

const fromRoot = (path: string, root: unknown, { section, sections }: Wanted): File => {
  const reading: Reading = { values: new Map(), problems: [] }
  const name = section ?? defaultSection
  if (isNothing(root)) return reading
  if (!Predicate.isObject(root)) {
    return { ...reading, problems: [{ source: path, problem: `expected a mapping, got ${kindOf(root)}` }] }
  }
  if (!Object.hasOwn(root, name)) {
    if (section === undefined) readRoot(reading, `${path}: `, root, { own: false, sections })
    return reading
  }
  const inner = root[name]
  const place = `${path}: ${keyName(name)}`
  if (Predicate.isObject(inner)) {
    readRoot(reading, `${place}.`, inner, { own: true, sections })
  } else if (!isNothing(inner)) {
    reading.problems.push({ source: place, problem: `expected a mapping, got ${kindOf(inner)}` })
  }
  return reading
}

const nothing: ReadonlyMap<string, Written> = new Map()

const unparsed = (path: string, { line, problem }: NotYaml): File => ({
  values: nothing,
  problems: [{ source: line === undefined ? path : `${path}, line ${line}`, problem }]
})

const fromText = (path: string, text: string, wanted: Wanted): File =>
  Result.match(parse(text), {
    onFailure: (notYaml) => unparsed(path, notYaml),
    onSuccess: (root) => fromRoot(path, root, wanted)
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
    problem: reasons[reason._tag] ?? `this file cannot be read: ${reason._tag}`
  }]
})

// A directory of that name, or a file where its directory should be, was not meant for us.
const isAbsent = ({ reason }: PlatformError.PlatformError): boolean =>
  reason._tag === "NotFound" || reason._tag === "BadResource"

const readGiven = (fs: FileSystem.FileSystem, given: Given, wanted: Wanted): Effect.Effect<File> =>
  Effect.match(fs.readFileString(given.path), {
    onFailure: (error) => unread(given, error),
    onSuccess: (text) => fromText(given.path, text, wanted)
  })

/** The file of this path, else the one that the environment names, else the first of the default ones that exists. */
export const find = Effect.fnUntraced(function*(
  path: string | undefined,
  environment: ConfigProvider.ConfigProvider,
  wanted: Wanted
): Effect.fn.Return<File, Config.ConfigError, FileSystem.FileSystem> {
  const fs = yield* FileSystem.FileSystem
  if (path !== undefined) return yield* readGiven(fs, { path }, wanted)
  const named = yield* Config.option(Config.String(fileVariable)).parse(environment)
  if (Option.isSome(named)) return yield* readGiven(fs, { path: named.value, by: fileVariable }, wanted)
  for (const path of defaultPaths) {
    const file = yield* Effect.match(fs.readFileString(path), {
      onFailure: (error) => isAbsent(error) ? Option.none() : Option.some(unread({ path }, error)),
      onSuccess: (text) => Option.some(fromText(path, text, wanted))
    })
    if (Option.isSome(file)) return file.value
  }
  return { values: nothing, problems: [] }
})
