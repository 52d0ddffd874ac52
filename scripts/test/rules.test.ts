import { assert, describe, it } from "@effect/vitest"
import { circles } from "../rules/circles.ts"
import { functions } from "../rules/functions.ts"
import { inheritance } from "../rules/inheritance.ts"
import { size } from "../rules/size.ts"
import { parse, type Rule } from "../rules/source.ts"

const src = (files: Readonly<Record<string, string>>) =>
  Object.entries(files).map(([path, text]) => parse(`packages/p/src/${path}`, text))

const messages = (rule: Rule, files: Readonly<Record<string, string>>) =>
  rule(src(files)).map(({ line, message, path }) =>
    `${path.replace("packages/p/src/", "")}${line === undefined ? "" : `:${line}`}: ${
      message.replaceAll("packages/p/src/", "")
    }`
  )

const types = (name: string, other: string) => `import type { X } from "${other}"\nexport type ${name} = X`

const body = (lines: number) => Array.from({ length: lines }, (_, i) => `  run(${i})`).join("\n")

describe("circles", () => {
  it("finds none in a chain, and none through another package", () => {
    assert.deepStrictEqual(
      messages(circles, {
        "A.ts":
          `import { b } from "./internal/b.ts"\nimport * as Effect from "effect/Effect"\nexport const a = [b, Effect]`,
        "internal/b.ts": `import { c } from "./c.ts"\nexport const b = c`,
        "internal/c.ts": `export const c = 1`
      }),
      []
    )
  })

  it("finds one at run time, also between a public module and its file", () => {
    assert.deepStrictEqual(
      messages(circles, {
        "A.ts": `export * from "./internal/a.ts"`,
        "internal/a.ts": `import { x } from "../A.ts"\nexport const a = () => x`
      }),
      ["A.ts: import circle at run time: A.ts -> internal/a.ts -> A.ts"]
    )
  })

  it("finds one that a dynamic import closes", () => {
    assert.deepStrictEqual(
      messages(circles, {
        "internal/a.ts": `import { b } from "./b.ts"\nexport const a = b`,
        "internal/b.ts": `export const b = () => import("./a.ts")`
      }),
      ["internal/a.ts: import circle at run time: internal/a.ts -> internal/b.ts -> internal/a.ts"]
    )
  })

  it("finds one that the type of an import closes", () => {
    assert.deepStrictEqual(
      messages(circles, {
        "internal/a.ts": `import { b } from "./b.ts"\nexport const a = b`,
        "internal/b.ts": `export const b = (a: typeof import("./a.ts").a) => a`
      }),
      ["internal/a.ts: import circle by types: internal/a.ts -> internal/b.ts -> internal/a.ts"]
    )
  })

  it("finds a long one once, and names its modules", () => {
    assert.deepStrictEqual(
      messages(circles, {
        "internal/a.ts": `import "./b.ts"`,
        "internal/b.ts": `import {} from "./c.ts"`,
        "internal/c.ts": `import { type A, value } from "./a.ts"\nexport const c: A = value`
      }),
      [
        "internal/a.ts: import circle at run time: internal/a.ts -> internal/b.ts -> internal/c.ts -> internal/a.ts"
        + " (3 modules in it: internal/a.ts, internal/b.ts, internal/c.ts)"
      ]
    )
  })

  it("allows types between a public module and the one file that implements it", () => {
    assert.deepStrictEqual(
      messages(circles, {
        "A.ts": `export { make } from "./internal/a.ts"\nexport interface A {}`,
        "internal/a.ts": `import type { A } from "../A.ts"\nexport const make = (): A => ({})`
      }),
      []
    )
  })

  it("refuses types between two internal modules, between two public ones, and among three", () => {
    assert.deepStrictEqual(
      messages(circles, { "internal/a.ts": types("A", "./b.ts"), "internal/b.ts": types("B", "./a.ts") }),
      ["internal/a.ts: import circle by types: internal/a.ts -> internal/b.ts -> internal/a.ts"]
    )
    assert.deepStrictEqual(
      messages(circles, { "A.ts": types("A", "./B.ts"), "B.ts": types("B", "./A.ts") }),
      ["A.ts: import circle by types: A.ts -> B.ts -> A.ts"]
    )
    assert.deepStrictEqual(
      messages(circles, {
        "A.ts": `export { a } from "./internal/a.ts"\nexport interface A {}`,
        "internal/a.ts": `import { b } from "./b.ts"\nexport const a = b`,
        "internal/b.ts": types("B", "../A.ts") + "\nexport const b = 1"
      }),
      [
        "A.ts: import circle by types: A.ts -> internal/a.ts -> internal/b.ts -> A.ts"
        + " (3 modules in it: A.ts, internal/a.ts, internal/b.ts)"
      ]
    )
  })
})

describe("functions", () => {
  it("counts the lines of code of a function, its first and last included", () => {
    assert.deepStrictEqual(messages(functions, { "a.ts": `function short() {\n${body(58)}\n}` }), [])
    assert.deepStrictEqual(messages(functions, { "a.ts": `const a = 1\nfunction long() {\n${body(59)}\n}` }), [
      "a.ts:2: long has 61 lines of code, more than 60"
    ])
  })

  it("counts no blanks and no comments", () => {
    const padding = "\n  // why\n  /* and\n\n   what */\n\n".repeat(10)
    assert.deepStrictEqual(messages(functions, { "a.ts": `const short = () => {\n${body(58)}${padding}}` }), [])
  })

  it("names a function after the constant, the property or the method that it is", () => {
    const long = `{\n${body(70)}\n}`
    assert.deepStrictEqual(
      messages(functions, {
        "a.ts": `export const a = Effect.fnUntraced(function*() ${long})`,
        "b.ts": `export class B { #b() ${long} }`,
        "c.ts": `export default { c: () => ${long} }`
      }),
      [
        "a.ts:1: a has 72 lines of code, more than 60",
        "b.ts:1: b has 72 lines of code, more than 60",
        "c.ts:1: c has 72 lines of code, more than 60"
      ]
    )
  })

  it("reports a function without a name with the long one around it, and a named one apart", () => {
    const inner = (name: string) => `const outer = () =>\n  gen(${name}function*() {\n${body(61)}\n  })`
    assert.deepStrictEqual(messages(functions, { "a.ts": inner("") }), [
      "a.ts:1: outer has 64 lines of code, more than 60"
    ])
    assert.deepStrictEqual(
      messages(functions, { "a.ts": `const outer = () => {\n  const inner = () => {\n${body(61)}\n  }\n}` }),
      ["a.ts:1: outer has 65 lines of code, more than 60", "a.ts:2: inner has 63 lines of code, more than 60"]
    )
  })
})

describe("inheritance", () => {
  it("allows the bases that Effect makes", () => {
    assert.deepStrictEqual(
      messages(inheritance, {
        "a.ts": `import * as Context from "effect/Context"
import * as Schema from "effect/Schema"
import { Data } from "effect"
export class Lock extends Context.Service<Lock, {}>()("Lock") {}
export class Lost extends Schema.TaggedError<Lost>()("Lost", {}) {}
export class Point extends Data.TaggedError("Point")<{}> {}
export class Plain {}
export interface Wide extends Narrow {}`
      }),
      []
    )
  })

  it("refuses every other base", () => {
    assert.deepStrictEqual(
      messages(inheritance, {
        "a.ts": `import { Base } from "./base.ts"
export class A extends Base {}
export class Failure extends Error {}
export const made = class extends mixin(Base) {}`
      }),
      ["a.ts:2: A extends Base", "a.ts:3: Failure extends Error", "a.ts:4: a class extends mixin(Base)"]
    )
  })
})

describe("size", () => {
  it("counts lines with code, in all and by folder", () => {
    const { all, folders } = size(src({
      "A.ts": `/**\n * What it is.\n */\n\nexport const a = 1 // one\n\n/* two */ export const b = "// three"\n`,
      "internal/a.ts": "export const text = `\n  // no comment\n`\n",
      "testing/laws/b.ts": "export {}"
    }))
    assert.deepStrictEqual(all, { files: 3, lines: 6 })
    assert.deepStrictEqual(Object.fromEntries(folders), {
      ".": { files: 1, lines: 2 },
      internal: { files: 1, lines: 3 },
      testing: { files: 1, lines: 1 }
    })
  })
})
