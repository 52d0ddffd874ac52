import { assert, describe, it } from "@effect/vitest"
import * as names from "../src/internal/names.ts"

const lease = "7587883283486741514"

describe("names", () => {
  it("is the layout of etcdctl, with the owner behind the lease", () => {
    const { line, place } = names.of("", "jobs")
    assert.strictEqual(line, "jobs/")
    assert.strictEqual(
      place(lease, "host:1/uuid"),
      "jobs/694d7a8f5d4a3c0a-host:1%2Fuuid".replace(/[0-9a-f]{16}/, BigInt(lease).toString(16))
    )
  })

  it("keeps keys apart whatever they contain", () => {
    const keys = ["a", "a/b", "a%2Fb", "a%252Fb", "a%", "a%void", "a%void/x", "%", "/", "//", "a/", "é", "a\0"]
    const lines = keys.map((key) => names.of("", key).line)
    assert.strictEqual(new Set(lines).size, keys.length, "every key has a line of its own")
    for (const line of lines) {
      for (const other of lines) {
        assert.isTrue(line === other || !line.startsWith(other), `${line} is not within ${other}`)
      }
    }
  })

  it("puts the mark below the name, outside of every line", () => {
    const { line, mark, place } = names.of("locks/", "a")
    assert.isTrue(mark("x/1").startsWith("locks/a"), "rights on the name reach the mark")
    for (const key of ["a", "a%void", "a%void/x", "a/", ""]) {
      assert.isFalse(mark("x/1").startsWith(names.of("locks/", key).line), `the mark is not in the line of "${key}"`)
    }
    assert.isFalse(mark("x/1").startsWith(line))
    assert.isTrue(place(lease, "x/1").startsWith(line))
  })

  it("keeps owners apart", () => {
    const { mark, place } = names.of("", "a")
    const owners = ["x/1", "x%2F1", "x/1/", "x", ""]
    assert.strictEqual(new Set(owners.map((owner) => place(lease, owner))).size, owners.length)
    assert.strictEqual(new Set(owners.map((owner) => mark(owner))).size, owners.length)
  })

  it("ends the range of a line where the line ends", () => {
    assert.strictEqual(names.endOf("a/"), "a0")
  })

  it("puts one slash after the prefix", () => {
    for (
      const [prefix, root] of [["", ""], ["/", ""], ["locks", "locks/"], ["locks//", "locks/"], [
        "a/b",
        "a/b/"
      ]] as const
    ) {
      assert.strictEqual(names.root(prefix), root)
    }
  })
})
