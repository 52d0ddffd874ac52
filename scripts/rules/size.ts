/**
 * How large a package is, in all and by folder of its sources.
 */
import { codeLines, type Source } from "./source.ts"

export interface Size {
  readonly files: number
  readonly lines: number
}

const sum = (sources: ReadonlyArray<Source>): Size => ({
  files: sources.length,
  lines: sources.reduce((lines, source) => lines + codeLines(source), 0)
})

/** The folder below `src` that a file stands in, the deeper ones included: `internal`, `testing`, or `.`. */
const folderOf = ({ path }: Source) => /\/src\/(?:([^/]+)\/)?/.exec(path)?.[1] ?? "."

/** The size of all, and of each folder below `src`. */
export const size = (sources: ReadonlyArray<Source>): { readonly all: Size, readonly folders: Map<string, Size> } => {
  const folders = new Map<string, Size>()
  for (const [folder, its] of Map.groupBy(sources, folderOf)) folders.set(folder, sum(its))
  return { all: sum(sources), folders }
}
