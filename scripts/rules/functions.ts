/**
 * No function of more than 60 lines of code, blanks and comments not counted.
 */
import { type ArrowFunctionExpression, type Function, type Node, Visitor } from "oxc-parser"
import { codeLines, lineOf, type Rule, type Source, type Violation } from "./source.ts"

const limit = 60

/** The names that functions get from where they stand: a declaration, also through calls, a property, a method. */
const namesOf = ({ program }: Source): ReadonlyMap<unknown, string> => {
  const names = new Map<unknown, string>()
  const name = (text: string, value: Node | null) => {
    if (value === null) return
    if (value.type === "CallExpression") { for (const argument of value.arguments) name(text, argument) }
    else names.set(value, text)
  }
  const keyed = (key: Node, value: Node | null) => {
    if (key.type === "Identifier" || key.type === "PrivateIdentifier") name(key.name, value)
  }
  new Visitor({
    VariableDeclarator: ({ id, init }) => keyed(id, init),
    Property: ({ key, value }) => keyed(key, value),
    MethodDefinition: ({ key, value }) => keyed(key, value),
    PropertyDefinition: ({ key, value }) => keyed(key, value)
  }).visit(program)
  return names
}

export const functions: Rule = (sources) =>
  sources.flatMap((source) => {
    const names = namesOf(source)
    const found: Array<Violation> = []
    let reportedUntil = -1
    const enter = (node: Function | ArrowFunctionExpression) => {
      const lines = codeLines(source, node.start, node.end)
      if (lines <= limit) return
      const name = node.id?.name ?? names.get(node)
      // A function without a name is part of the long one that it stands in.
      if (name === undefined && node.end <= reportedUntil) return
      reportedUntil = Math.max(reportedUntil, node.end)
      found.push({
        path: source.path,
        line: lineOf(source, node.start),
        message: `${name ?? "a function"} has ${lines} lines of code, more than ${limit}`
      })
    }
    new Visitor({ FunctionDeclaration: enter, FunctionExpression: enter, ArrowFunctionExpression: enter })
      .visit(source.program)
    return found
  })
