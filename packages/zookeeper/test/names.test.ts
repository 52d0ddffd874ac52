import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Path from "../src/internal/names.ts"

const name = (segment: string): string => Path.directoryOf("/p", segment).slice("/p/".length)

/** The way back. */
const decoded = (name: string): string =>
  decodeURIComponent(encodeURIComponent(name).replaceAll(/~([0-9a-f]{2})/g, "%$1"))

const node = (sequence: string, id = "a"): string => `_c_${id}-lock-${sequence}`

describe("the path of a key", () => {
  it.each([
    ["orders", "orders"],
    ["42", "42"],
    ["an order", "an order"],
    ["été-中", "été-中"],
    ["a.b", "a.b"],
    ["...", "~2e.."],
    ["~", "~7e"],
    ["a~b", "a~7eb"],
    ["\0\n\x7f\x9f", "~00~0a~7f~c2~9f"],
    ["🔒", "~f0~9f~94~92"],
    ["\ue000\ufff0", "~ee~80~80~ef~bf~b0"],
    ["lock-7", "~6cock-7"],
    ["my-lock-lock-", "my-~6cock-~6cock-"],
    ["0", "~30"],
    ["0000000000", "~30000000000"],
    ["-", "~2d"],
    ["!a", "~21a"],
    ["\0lock-", "~00~6cock-"]
  ])("%j is the node %s", (segment, expected) => {
    assert.strictEqual(name(segment), expected)
    assert.strictEqual(decoded(expected), segment, "the mapping can be undone")
  })

  it("has a level for each segment", () => {
    assert.strictEqual(Path.directoryOf("/locks", "orders/42/~"), "/locks/orders/42/~7e")
    assert.deepStrictEqual(Path.levels("/locks/orders/42"), ["/locks", "/locks/orders", "/locks/orders/42"])
    assert.deepStrictEqual(Path.levels("/locks"), ["/locks"])
  })

  it.prop("is safe, and can be undone, for any text", [Schema.NonEmptyString], ([text]) => {
    const segment = text.replaceAll("/", "_").toWellFormed()
    const encoded = name(segment)
    assert.strictEqual(decoded(encoded), segment)
    assert.isFalse(encoded.includes("lock-"), "Curator would take it for a contender")
    assert.isTrue(encoded > "0999999999", "Curator would wait for it")
    // oxlint-disable-next-line no-control-regex
    assert.isFalse(/[\0-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\uffff]/.test(encoded), "the server would refuse it")
    assert.notStrictEqual(`/p/${encoded}`, Path.nowhere("/p"))
  })

  it.each(["", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "a/.."])("%j is refused", (key) => {
    assert.isString(Path.keyProblem(key))
  })

  it.each(["a", "a/b", "a/...", "a/.b", " "])("%j is a key", (key) => {
    assert.isUndefined(Path.keyProblem(key))
  })

  it.each(["", "/", "locks", "/locks/", "//", "/a/../b", "/a\0", "/~"])("%j is no prefix", (prefix) => {
    assert.isString(Path.prefixProblem(prefix))
  })

  it.each(["/locks", "/a/b/c", "/été"])("%j is a prefix", (prefix) => {
    assert.isUndefined(Path.prefixProblem(prefix))
  })
})

describe("the line", () => {
  it("is ordered by the numbers, whatever comes before them in the names", () => {
    const names = [node("0000000012", "z"), node("0000000003", "b"), node("0000000007", "y"), "lock-0000000009"]
    assert.deepStrictEqual(Path.ahead(names, node("0000000012", "z")), ["lock-0000000009", node("0000000007", "y")])
    assert.deepStrictEqual(Path.ahead(names, "lock-0000000009"), [node("0000000007", "y"), node("0000000003", "b")])
    assert.deepStrictEqual(Path.ahead(names, node("0000000007", "y")), [node("0000000003", "b")])
    assert.deepStrictEqual(Path.ahead(names, node("0000000003", "b")), [])
  })

  it("is not told by the numbers any more when the server's counter has overflowed", () => {
    assert.isFalse(Path.hasOverflowed([node("0000000000"), node("2147483646"), "42", "-1"]))
    assert.isTrue(Path.hasOverflowed([node("0000000000"), node("2147483647")]))
    assert.isTrue(Path.hasOverflowed([node("-2147483648"), node("0000000000")]))
  })

  it("has no place for anything else", () => {
    const others = ["42", "orders", "~6cock-0000000000", "lock-", "lock-x", "_c_a-__WRIT__0000000000", "lock-1-x"]
    const contender = node("0000000000")
    assert.deepStrictEqual(Path.contenders([...others, contender]), [contender])
    assert.deepStrictEqual(Path.ahead(others, node("0000000001")), [])
  })
})
