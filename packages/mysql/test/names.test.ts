import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Names from "../src/internal/names.ts"

describe("names", () => {
  it("a short key of lower-case letters, digits and : _ . / - is its own name", () => {
    for (const key of ["orders", "orders/42", "a:b.c_d-e", "0", "x".repeat(64)]) {
      assert.strictEqual(Names.of("", key), key)
    }
  })

  it("any other key is hashed: MySQL folds case and takes 64 characters, MariaDB takes bytes", () => {
    for (const key of ["Orders", "x".repeat(65), "naïve", "a b", "#a", "emoji 🙂", "it's", "a\\b", "日本語"]) {
      assert.match(Names.of("", key), /^#[a-z2-7]{52}$/, key)
    }
  })

  it("the hash is SHA-256 in base32, so another program can compute it", () => {
    // printf 'Orders' | sha256sum | xxd -r -p | base32 | tr A-Z a-z | tr -d =
    assert.strictEqual(Names.of("", "Orders"), "#w7ukzxksfzqzblevm6wrnx7zq46lw6eifo7ugw36dcoeicuusfmq")
  })

  it("the prefix is part of what is named", () => {
    assert.strictEqual(Names.of("app:", "a"), "app:a")
    assert.strictEqual(Names.of("App:", "a"), Names.of("", "App:a"))
    assert.notStrictEqual(Names.of("a:", "K"), Names.of("b:", "K"))
  })

  it.prop(
    "different keys have different names, also where the server folds case",
    [Schema.String, Schema.String],
    ([x, y]) => {
      // Core lets only well-formed keys through.
      const [a, b] = [x.toWellFormed(), y.toWellFormed()]
      const [left, right] = [Names.of("", a), Names.of("", b)]
      assert.strictEqual(left.toLowerCase() === right.toLowerCase(), a === b)
    }
  )

  it.prop("a name has at most 64 characters and needs no quoting", [Schema.String], ([key]) => {
    assert.match(Names.of("", key), /^[#a-z0-9:_./-]{1,64}$/)
  })
})
