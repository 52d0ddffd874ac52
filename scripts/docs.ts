/**
 * Whether every public export says what it is, since when, and where it belongs.
 */
import { globSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { root } from "./run.ts"
import { publishedPackages } from "./workspace.ts"

const declaration = /^export (?:declare |abstract )*(const|function|class|interface|type|namespace) (\w+)/

const exportedAgain = /^export (?:type )?(\*[^"]*|\{[^}]*\}) from "(\.[^"]+)"/gm

/** The modules that users import, and those that these export again; which names of them, or all. */
const publicModules = (): ReadonlyMap<string, ReadonlyArray<string> | "all"> => {
  const modules = new Map<string, ReadonlyArray<string> | "all">()
  for (const { folder, manifest } of publishedPackages()) {
    for (const target of Object.values(manifest.exports ?? {})) {
      if (target === null || !target.startsWith("./src/")) continue
      for (const file of globSync(join(folder, target), { cwd: root })) modules.set(file, "all")
    }
  }
  // A map that grows while it is read gives the new ones too.
  for (const [file] of modules) {
    for (const [, what = "", from = ""] of readFileSync(join(root, file), "utf8").matchAll(exportedAgain)) {
      const other = join(dirname(file), from)
      const known = modules.get(other)
      if (from.includes("internal/") || known === "all") continue
      modules.set(other, what.startsWith("*") ? "all" : [...known ?? [], ...what.match(/\w+/g) ?? []])
    }
  }
  return modules
}

/** What is missing, each with its file and line. */
export const undocumented = (): ReadonlyArray<string> => {
  const missing: Array<string> = []
  for (const [file, names] of publicModules()) {
    const lines = readFileSync(join(root, file), "utf8").split("\n")
    const documented = new Set<string>()
    lines.forEach((line, index) => {
      const [, kind, name] = declaration.exec(line) ?? []
      // The later overloads of a function have the text of the first.
      if (kind === undefined || name === undefined || (kind === "function" && documented.has(name))) return
      if (names !== "all" && !names.includes(name)) return
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
