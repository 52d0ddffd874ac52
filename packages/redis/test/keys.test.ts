import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { fenceInSlot, keysOf, slotOf } from "../src/internal/RedisKeys.ts"

const own = (key: string) => Object.values(keysOf(key))

const all = (key: string) => [...own(key), fenceInSlot(key)]

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
    for (const key of ["a", "{a}b", "a}b", "{}x", "}"]) assert.strictEqual(keysOf(key).lock, key)
  })

  it("a hash tag is kept, and a key without one becomes one", () => {
    assert.strictEqual(keysOf("orders/42").line, "{orders/42}:dlock-line")
    assert.strictEqual(keysOf("{orders}/42").line, "{orders}/42:dlock-line")
    assert.strictEqual(keysOf("a{b").line, "{a{b}:dlock-line")
    assert.match(keysOf("a}b").line, /^\{\d+\}:a\}b:dlock-line$/)
  })

  const braces = Schema.String.check(Schema.isPattern(/^[{}ab:0-9]{1,8}$/))

  it.prop("all lie in one slot", [Schema.NonEmptyString], ([key]) => {
    assert.strictEqual(new Set(all(key).map(slotOf)).size, 1)
  })

  it.prop("all lie in one slot, however many braces there are", [braces], ([key]) => {
    assert.strictEqual(new Set(all(key).map(slotOf)).size, 1)
  })

  it.prop("no two locks share a key", [braces, braces], ([one, other]) => {
    if (one === other) return
    const keys = new Set(all(one))
    assert.isFalse(own(other).some((key) => keys.has(key)))
  })
})
