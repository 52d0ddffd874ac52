/**
 * YAML by Effect's module, with errors that say where and show no value.
 */
import * as Yaml from "effect/encoding/Yaml"
import * as Result from "effect/Result"

/** Why a text is not YAML, and where if that can be told. */
export interface NotYaml {
  readonly line: number | undefined
  readonly problem: string
}

// Beyond this many lines the parser's own word has to do: to look for the line takes one parsing per line.
const mostLines = 1000

const read = (text: string): Result.Result<unknown, unknown> =>
  Result.try({ try: () => Yaml.parse(text), catch: (thrown) => thrown })

// A mistake makes every text that contains it unreadable: it stands right after the longest beginning that is readable.
const lineOfMistake = (text: string): number | undefined => {
  const lines = text.split(/\r\n?|\n/)
  if (lines.length > mostLines) return undefined
  for (let count = lines.length - 1; count > 0; count--) {
    if (Result.isSuccess(read(lines.slice(0, count).join("\n")))) return count + 1
  }
  return 1
}

const located = /^(.*) at line (\d+)$/s

const explain = (text: string, thrown: unknown): NotYaml => {
  if (!(thrown instanceof SyntaxError)) {
    return { line: lineOfMistake(text), problem: "this is not YAML, or it is nested too deeply" }
  }
  // The name of the alias may be a password that was not put in quotes.
  if (thrown.message.includes("alias")) {
    return { line: lineOfMistake(text), problem: "unknown YAML alias; a text that begins with * must be in quotes" }
  }
  const [, message, line] = located.exec(thrown.message) ?? []
  return message === undefined || line === undefined
    ? { line: lineOfMistake(text), problem: thrown.message.replace(/ at flow offset \d+$/, "") }
    : { line: Number(line), problem: message }
}

/** The one document of a text. */
export const parse = (text: string): Result.Result<unknown, NotYaml> =>
  Result.mapError(read(text), (thrown) => explain(text, thrown))
