/**
 * The environment over the file, key by key, and everything that is wrong with what counts of them.
 */
import type * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { File, Problem } from "./configFile.ts"
import { decode, raw } from "./configRead.ts"
import { type Section, sections } from "./configTable.ts"

const checkSection = Effect.fnUntraced(function*(
  section: Section,
  environment: ConfigProvider.ConfigProvider,
  file: File
) {
  const problems: Array<Problem> = []
  const written: { [variable: string]: unknown } = {}
  const sources = new Map<string, string>()
  for (const { variable } of section.entries) {
    const value = yield* Effect.match(raw(variable).parse(environment), {
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
  const decoded = decode(section, written)
  if (Result.isFailure(decoded)) {
    for (const { entry, problem } of decoded.failure) {
      problems.push({ source: sources.get(entry.variable) ?? entry.variable, problem })
    }
  }
  return problems
})

/** Every problem of the file itself and of the values that count: those of the file that no variable overrides. */
export const check = Effect.fnUntraced(function*(
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
