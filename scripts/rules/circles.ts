/**
 * No import circle between modules at run time. By types alone, only between a public module and the one internal file
 * that implements it.
 */
import { dirname, join } from "node:path/posix"
import { Visitor } from "oxc-parser"
import type { Rule, Source } from "./source.ts"

type Graph = ReadonlyMap<string, ReadonlySet<string>>

interface Edge {
  readonly to: string
  readonly types: boolean
}

const relative = /^\.\.?\//

/** What a module imports or exports again from other modules of its package. An empty `import {}` is a run-time import. */
const edges = ({ imports, path, program }: Source): ReadonlyArray<Edge> => {
  const found: Array<{ readonly request: string, readonly types: boolean }> = []
  for (const { entries, moduleRequest } of imports.staticImports) {
    found.push({ request: moduleRequest.value, types: entries.length > 0 && entries.every(({ isType }) => isType) })
  }
  for (const { entries } of imports.staticExports) {
    for (const { isType, moduleRequest } of entries) {
      if (moduleRequest !== null) found.push({ request: moduleRequest.value, types: isType })
    }
  }
  new Visitor({
    ImportExpression: ({ source }) => {
      if (source.type === "Literal") found.push({ request: String(source.value), types: false })
    },
    TSImportType: ({ source }) => {
      found.push({ request: source.value, types: true })
    }
  }).visit(program)
  return found
    .filter(({ request }) => relative.test(request))
    .map(({ request, types }) => ({ to: join(dirname(path), request), types }))
}

/** The groups of two and more modules that all reach each other (Tarjan's strongly connected components). */
const groups = (graph: Graph): ReadonlyArray<ReadonlyArray<string>> => {
  const index = new Map<string, number>()
  const low = new Map<string, number>()
  const stack: Array<string> = []
  const found: Array<ReadonlyArray<string>> = []
  const visit = (node: string): number => {
    const own = index.size
    let least = own
    index.set(node, own)
    stack.push(node)
    for (const next of graph.get(node) ?? []) {
      if (!graph.has(next)) continue
      if (!index.has(next)) least = Math.min(least, visit(next))
      else if (stack.includes(next)) least = Math.min(least, index.get(next) ?? own)
    }
    low.set(node, least)
    if (least === own) {
      const group = stack.splice(stack.indexOf(node)).toSorted()
      if (group.length > 1 || graph.get(node)?.has(node) === true) found.push(group)
    }
    return least
  }
  for (const node of graph.keys()) if (!index.has(node)) visit(node)
  return found
}

/** A shortest way from a module back to itself. */
const shortest = (graph: Graph, start: string): ReadonlyArray<string> => {
  const ways: Array<ReadonlyArray<string>> = [[start]]
  const seen = new Set<string>()
  for (const way of ways) {
    for (const next of graph.get(way.at(-1) ?? start) ?? []) {
      if (next === start) return [...way, start]
      if (seen.has(next)) continue
      seen.add(next)
      ways.push([...way, next])
    }
  }
  return [start]
}

const isInternal = (path: string) => path.includes("/internal/")

const isPublicWithItsFile = (group: ReadonlyArray<string>) =>
  group.length === 2 && group.filter(isInternal).length === 1

const describe = (kind: string, graph: Graph, group: ReadonlyArray<string>) => {
  const [path = ""] = group
  const example = shortest(graph, path).join(" -> ")
  const rest = group.length > 2 ? ` (${group.length} modules in it: ${group.join(", ")})` : ""
  return { path, message: `${kind}: ${example}${rest}` }
}

export const circles: Rule = (sources) => {
  const graphOf = (keep: (edge: Edge) => boolean): Graph =>
    new Map(sources.map((source) => [source.path, new Set(edges(source).filter(keep).map(({ to }) => to))]))
  const runTime = graphOf(({ types }) => !types)
  const all = graphOf(() => true)
  const atRunTime = groups(runTime)
  const same = (group: ReadonlyArray<string>) => atRunTime.some((other) => other.join() === group.join())
  return [
    ...atRunTime.map((group) => describe("import circle at run time", runTime, group)),
    ...groups(all)
      .filter((group) => !isPublicWithItsFile(group) && !same(group))
      .map((group) => describe("import circle by types", all, group))
  ]
}
