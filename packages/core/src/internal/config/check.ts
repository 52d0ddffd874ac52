/**
 * The environment over the file, key by key, and everything that is wrong with what counts of them.
 */
import type * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as declaration from "./declaration.ts"
import * as environmentOf from "./environment.ts"
import type { File, Problem } from "./file.ts"
import { fileVariable } from "./table.ts"

const checkSection = Effect.fnUntraced(function*(
  section: declaration.Section,
  environment: ConfigProvider.ConfigProvider,
  file: File
) {
  const problems: Array<Problem> = []
  const written: { [variable: string]: unknown } = {}
  const sources = new Map<string, string>()
  for (const { variable } of section.entries) {
    const value = yield* Effect.match(declaration.raw(variable).parse(environment), {
      onFailure: ({ message }: Config.ConfigError) => {
        problems.push({ source: variable, problem: message })
        return Option.none()
      },
      onSuccess: (value) => value
    })
    const fromFile = file.values.get(variable)
    if (Option.isSome(value)) {
      written[variable] = value.value
    } else if (fromFile !== undefined) {
      written[variable] = fromFile.value
      sources.set(variable, fromFile.source)
    }
  }
  for (const { problem, variable } of section.check(written)) {
    problems.push({ source: sources.get(variable) ?? variable, problem })
  }
  return problems
})

/** Every problem of the file itself and of the values that count: those of the file that no variable overrides. */
export const check = Effect.fnUntraced(function*(
  sections: ReadonlyArray<declaration.Section>,
  environment: ConfigProvider.ConfigProvider,
  file: File
): Effect.fn.Return<ReadonlyArray<Problem>> {
  const problems = yield* Effect.forEach(sections, (section) => checkSection(section, environment, file))
  return [...file.problems, ...problems.flat()]
})

/** The environment, and below it the file under the names of the environment. */
export const merge = (environment: ConfigProvider.ConfigProvider, file: File): ConfigProvider.ConfigProvider =>
  ConfigProvider.orElse(
    environment,
    ConfigProvider.fromUnknown(
      Object.fromEntries([...file.values].map(([variable, { value }]) => [variable, value]))
    )
  )

/** The variables of the environment that nothing reads. A source that cannot list its names has none. */
export const unread = (
  sections: ReadonlyArray<declaration.Section>,
  environment: ConfigProvider.ConfigProvider
): Effect.Effect<ReadonlyArray<environmentOf.Unread>> => {
  const known = sections.flatMap(({ entries }) => entries.map(({ variable }) => variable))
  return Effect.match(environmentOf.variables(environment), {
    onFailure: () => [],
    onSuccess: (found) => environmentOf.unread(found, [fileVariable, ...known])
  })
}

/** Those of them that are near misses of a known name. */
export const misses = (unread: ReadonlyArray<environmentOf.Unread>): ReadonlyArray<declaration.Misfit> =>
  unread.flatMap(({ name, nearest }) =>
    nearest === undefined
      ? []
      : [{ variable: name, problem: `unknown variable, the nearest known name is "${nearest}"` }]
  )

/** The variables that were warned of. */
const Warned = Context.Reference<Set<string>>("@dlock/core/internal/config/Warned", { defaultValue: () => new Set() })

/** Warns once of each that is no near miss. */
export const warn = Effect.fnUntraced(function*(unread: ReadonlyArray<environmentOf.Unread>) {
  const warned = yield* Warned
  const names = unread.flatMap(({ name, nearest }) => nearest === undefined && !warned.has(name) ? [name] : [])
  if (names.length === 0) return
  names.forEach((name) => warned.add(name))
  yield* Effect.logWarning(`Nothing reads ${names.join(", ")}`)
})

/** Fails with the variables that are near misses of names of these sections; the other ones that nothing reads. */
export const checkMisses = Effect.fnUntraced(function*(sections: ReadonlyArray<declaration.Section>) {
  const others = yield* unread(sections, yield* ConfigProvider.ConfigProvider)
  const misfits = misses(others)
  return misfits.length > 0 ? yield* Effect.fail(declaration.configError(misfits)) : others
})

/** As `checkMisses`, and fails with everything else that is wrong with the variables of these sections. */
export const checkEnvironment = Effect.fnUntraced(function*(sections: ReadonlyArray<declaration.Section>) {
  const provider = yield* ConfigProvider.ConfigProvider
  const written = yield* declaration.rawAll(sections.flatMap(({ entries }) => entries)).parse(provider)
  const others = yield* unread(sections, provider)
  const misfits = [...sections.flatMap((section) => section.check(written)), ...misses(others)]
  return misfits.length > 0 ? yield* Effect.fail(declaration.configError(misfits)) : others
})
