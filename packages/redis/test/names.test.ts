import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { fenceInSlot, namesOf, slotOf } from "../src/internal/names.ts"

const own = (key: string) => Object.values(namesOf(key))

const all = (key: string) => [...own(key), fenceInSlot(key)]

/** No name belongs to two of the keys. */
const assertApart = (keys: Iterable<string>) => {
  const owners = new Map<string, string>()
  for (const key of new Set(keys)) {
    for (const name of key === "" ? [] : own(key)) {
      assert.isUndefined(owners.get(name), `${name} is of ${owners.get(name)} and of ${key}`)
      owners.set(name, key)
    }
  }
}

/** Keys that look like one another: braces around all or a part, moved or doubled, and what the names are made of. */
const relatives = (key: string): ReadonlyArray<string> => [
  `{${key}}`,
  `{{${key}}}`,
  `{${key}`,
  `${key}}`,
  `{}${key}`,
  `${key}:`,
  `{${slotOf(key)}}:${key}`,
  `{${key}}:dlock`,
  `${key}:dlock`,
  `{${key}}:${key}`,
  key.replaceAll("{", "").replaceAll("}", ""),
  [...key].toReversed().join(""),
  key.slice(1)
]

describe("the keys of a lock", () => {
  it("slots are those of Redis Cluster", () => {
    // From the specification of Redis Cluster, and from CLUSTER KEYSLOT.
    assert.strictEqual(slotOf("123456789"), 0x31c3)
    assert.strictEqual(slotOf("foo"), 12182)
    assert.strictEqual(slotOf("{user1000}.following"), slotOf("{user1000}.followers"))
    assert.notStrictEqual(slotOf("foo{}{bar}"), slotOf("bar"))
    assert.strictEqual(slotOf("foo{{bar}}zap"), slotOf("{bar"))
    assert.strictEqual(slotOf("foo{bar}{zap}"), slotOf("bar"))
  })

  it("the lock is the key itself", () => {
    for (const key of ["a", "{a}b", "a}b", "{}x", "}"]) assert.strictEqual(namesOf(key).lock, key)
  })

  it("a hash tag is kept, and a key without one becomes one", () => {
    assert.strictEqual(namesOf("orders/42").line, "{orders/42}:dlock-line")
    assert.strictEqual(namesOf("{orders}/42").line, "{orders}/42:dlock-tagged-line")
    assert.strictEqual(namesOf("a{b").line, "{a{b}:dlock-line")
    assert.match(namesOf("a}b").line, /^\{\d+\}:a\}b:dlock-line$/)
  })

  const braces = Schema.String.check(Schema.isPattern(/^[{}ab:0-9]{1,8}$/))

  it.prop("all lie in one slot", [Schema.NonEmptyString], ([key]) => {
    assert.strictEqual(new Set(all(key).map(slotOf)).size, 1)
  })

  it.prop("all lie in one slot, however many braces there are", [braces], ([key]) => {
    assert.strictEqual(new Set(all(key).map(slotOf)).size, 1)
  })

  it("of k are not those of {k}", () => assertApart(["k", "{k}"]))

  it.prop("no two locks share a key", [braces, braces], (keys) => assertApart(keys))

  it.prop("a key shares none with those that look like it, nor do they", [braces], ([key]) => {
    assertApart([key, ...relatives(key), ...relatives(key).flatMap(relatives)])
  })
})
