/**
 * Whether every public export says what it is, since when, and where it belongs.
 */
import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { root } from "./run.ts"

const declaration = /^export (?:declare |abstract )*(const|function|class|interface|type|namespace) (\w+)/

/** What is missing, each with its file and line. */
export const undocumented = (): ReadonlyArray<string> => {
  const missing: Array<string> = []
  for (
    const file of globSync(["packages/*/src/*.ts", "packages/core/src/testing/{LockTest,Capabilities}.ts"], {
      cwd: root
    })
  ) {
    const lines = readFileSync(join(root, file), "utf8").split("\n")
    const documented = new Set<string>()
    lines.forEach((line, index) => {
      const [, kind, name] = declaration.exec(line) ?? []
      // The later overloads of a function have the text of the first.
      if (kind === undefined || name === undefined || (kind === "function" && documented.has(name))) return
      documented.add(name)
      let first = index
      while (first > 0 && /^(?: \*|\/\/|export)/.test(lines[first] ?? "")) first--
      const doc = lines.slice(first, index).join("\n")
      const lacks = ["@since", ...kind === "namespace" ? [] : ["@category"]].filter((tag) => !doc.includes(tag))
      if (lacks.length > 0) missing.push(`${file}:${index + 1}: ${name} has no ${lacks.join(" and no ")}`)
    })
  }
  return missing
}
