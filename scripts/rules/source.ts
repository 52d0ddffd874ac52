/**
 * The source files that the rules read, parsed once.
 */
import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { type Comment, type ParseResult, parseSync } from "oxc-parser"

export interface Source {
  /** Relative to the root, with `/`. */
  readonly path: string
  readonly text: string
  readonly program: ParseResult["program"]
  readonly comments: ReadonlyArray<Comment>
  readonly imports: ParseResult["module"]
}

export interface Violation {
  readonly path: string
  readonly line?: number
  readonly message: string
}

/** A rule reads the sources of one package. */
export type Rule = (sources: ReadonlyArray<Source>) => ReadonlyArray<Violation>

export const parse = (path: string, text: string): Source => {
  const { comments, errors, module, program } = parseSync(path, text)
  if (errors.length > 0) throw new Error(`${path}: ${errors.map(({ message }) => message).join("; ")}`)
  return { path, text, program, comments, imports: module }
}

export const readSources = (root: string, folder: string): ReadonlyArray<Source> =>
  globSync(`${folder}/src/**/*.ts`, { cwd: root }).toSorted().map((path) =>
    parse(path, readFileSync(join(root, path), "utf8"))
  )

/** The number of the line, from 1, that an offset stands in. */
export const lineOf = ({ text }: Source, offset: number): number => text.slice(0, offset).split("\n").length

const uncommented = new WeakMap<Source, string>()

/** The text with every comment replaced by blanks, so that offsets and lines stay as they are. */
const withoutComments = (source: Source): string => {
  const known = uncommented.get(source)
  if (known !== undefined) return known
  let { text } = source
  for (const { end, start } of source.comments) {
    text = text.slice(0, start) + text.slice(start, end).replace(/[^\n]/g, " ") + text.slice(end)
  }
  uncommented.set(source, text)
  return text
}

/** The lines that hold more than blanks and comments. */
export const codeLines = (source: Source, start = 0, end = source.text.length): number =>
  withoutComments(source).slice(start, end).split("\n").filter((line) => line.trim() !== "").length
