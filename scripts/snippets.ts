/**
 * Writes every TypeScript snippet of the READMEs and of `docs/` as a module, so that the compiler reads what users read.
 * They go below `test/`, the package that depends on everything that a snippet may import.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { texts } from "./excerpts.ts"
import { root } from "./run.ts"

const folder = join(root, "test", ".snippets")

const tsconfig = {
  extends: "../../tsconfig.base.json",
  compilerOptions: { noEmit: true, declaration: false, declarationMap: false, sourceMap: false, noUnusedLocals: false },
  include: ["*.ts"]
}

/** Returns the path of the tsconfig that covers them, and how many there are. */
export const writeSnippets = (): { readonly project: string, readonly count: number } => {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const project = join(folder, "tsconfig.json")
  writeFileSync(project, JSON.stringify(tsconfig))
  let count = 0
  for (const file of texts) {
    const text = readFileSync(join(root, file), "utf8")
    const name = file.replaceAll("/", "-").replace(/\.md$/, "")
    for (const [, snippet] of text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)) {
      count++
      writeFileSync(join(folder, `${name}-${count}.ts`), `// ${file}\n${snippet}\nexport {}\n`)
    }
  }
  return { project, count }
}
