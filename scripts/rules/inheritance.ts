/**
 * No class extends another one for reuse. The bases that Effect makes are excepted: `Context.Service`,
 * `Schema.TaggedError` and their like.
 */
import { type Class, type Expression, Visitor } from "oxc-parser"
import { lineOf, type Rule, type Source, type Violation } from "./source.ts"

/** The name at the left end of `Context.Service<..>()("..")`. */
const head = (expression: Expression): string | undefined => {
  switch (expression.type) {
    case "Identifier":
      return expression.name
    case "CallExpression":
      return head(expression.callee)
    case "MemberExpression":
      return head(expression.object)
    case "TSInstantiationExpression":
      return head(expression.expression)
    default:
      return undefined
  }
}

const effectNames = ({ imports }: Source): ReadonlySet<string> =>
  new Set(
    imports.staticImports
      .filter(({ moduleRequest }) => /^effect(?:\/|$)/.test(moduleRequest.value))
      .flatMap(({ entries }) => entries.map(({ localName }) => localName.value))
  )

export const inheritance: Rule = (sources) =>
  sources.flatMap((source) => {
    const allowed = effectNames(source)
    const found: Array<Violation> = []
    const enter = ({ id, start, superClass }: Class) => {
      if (superClass === null || allowed.has(head(superClass) ?? "")) return
      found.push({
        path: source.path,
        line: lineOf(source, start),
        message: `${id?.name ?? "a class"} extends ${source.text.slice(superClass.start, superClass.end)}`
      })
    }
    new Visitor({ ClassDeclaration: enter, ClassExpression: enter }).visit(source.program)
    return found
  })
