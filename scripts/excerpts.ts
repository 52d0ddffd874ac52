/**
 * Programs of the repository that the texts show: a code fence that names a file holds that file, without the comment
 * at its head. `node scripts/excerpts.ts` puts them there.
 */
import { globSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Violation } from "./rules/source.ts"
import { root } from "./run.ts"

const fence = /^```(ts|js) (\S+)\n([\s\S]*?)^```$/gm

/** The texts that the compiler and the rule on excerpts read. */
export const texts: ReadonlyArray<string> = globSync(
  ["README.md", "docs/*.md", "{packages,test,examples,bench}/**/README.md"],
  { cwd: root }
).filter((path) => !path.includes("node_modules")).toSorted()

const source = (path: string): string => readFileSync(join(root, path), "utf8").replace(/^\/\*\*[\s\S]*?\*\/\n/, "")

const shown = (text: string): string =>
  text.replaceAll(fence, (_, language: string, path: string) => `\`\`\`${language} ${path}\n${source(path)}\`\`\``)

/** The texts that show something else than the files that they name. */
export const outdated = (): ReadonlyArray<Violation> =>
  texts.flatMap((path) => {
    const text = readFileSync(join(root, path), "utf8")
    return shown(text) === text ? [] : [{ path, message: "shows an old program: run node scripts/excerpts.ts" }]
  })

if (process.argv[1] === import.meta.filename) {
  for (const path of texts) writeFileSync(join(root, path), shown(readFileSync(join(root, path), "utf8")))
}
