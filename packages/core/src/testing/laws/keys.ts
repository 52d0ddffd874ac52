import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"

const shown = ({ key }: { readonly key: string }): string => JSON.stringify(key)

/** What some store could take away from the end of a key: padding, accents, paths, escapes, patterns. */
const after = [
  "",
  " ",
  "  ",
  "\t",
  "\n",
  "\r\n",
  "\0",
  "\0b",
  "\u007f",
  "\u00a0",
  "\u200b",
  "\ufeff",
  "\u202e",
  "a",
  "A",
  "\u00e0",
  "a\u0300",
  "\uff41",
  "\u0430",
  "ss",
  "\u00df",
  "\u1e9e",
  "i",
  "I",
  "\u0131",
  "\u0130",
  "k",
  "\u212a",
  ".",
  "..",
  "/",
  "//",
  "/.",
  "/..",
  "/../x",
  "/b",
  "//b",
  "/b/",
  "/b/c",
  "\\b",
  "%2Fb",
  "%252Fb",
  "+b",
  "~",
  "~1",
  "~0",
  "/0000000000",
  "/lock-0000000000",
  "/_c_00000000-0000-0000-0000-000000000000-lock-0000000000",
  "/-",
  "/!a",
  ":",
  ":a",
  ":fence",
  ":fencing",
  ":token",
  ":line",
  ":queue",
  ":waiters",
  ":void",
  "-",
  "_",
  "*",
  "?",
  "[a]",
  "^",
  "{}",
  "{}x",
  "{",
  "}",
  "}x",
  "{a}",
  "{a}b",
  "{b}b",
  "${a}",
  "'",
  "''",
  "\"",
  "`",
  ";",
  "--",
  "#",
  "@",
  "&",
  "=",
  ",",
  "|",
  "<",
  ">",
  "(",
  ")",
  "\\",
  "\\0",
  "\\u0000",
  "\u{1f512}",
  "\u{1f513}",
  "\u{1f468}\u200d\u{1f469}",
  "\u{10ffff}",
  "\uffff",
  "\u4e2d",
  "\u0627",
  "1",
  "01",
  "1.0",
  "0x1",
  "null",
  "undefined",
  "__proto__",
  "constructor"
]

const before = [" ", ".", "..", "/", "//", "./", "../", "~", "-", "\\", "%", "{}", "}", "{", "\0", "\ufeff", "0"]

const around = [
  ["{", "}"],
  ["{", "}a"],
  ["{", "}b"],
  ["x{", "}"],
  ["{{", "}}"],
  ["a{", "}b{c}"],
  ["\"", "\""],
  [" ", " "]
]

/**
 * Keys around `id` that some store could take for one another: by case, collation, normal form, padding, path, escape,
 * hash tag, pattern or length.
 */
const awkwardKeys = (id: string): ReadonlyArray<string> => {
  const long = id + "x".repeat(510 - id.length)
  return [
    ...after.map((s) => id + s),
    ...before.map((s) => s + id),
    ...around.map(([left, right]) => `${left}${id}${right}`),
    ...["aa", "ab", "Aa", "a ", "a/"].map((s) => long + s),
    // 64 and 255 are limits of servers, beyond which a name is cut or refused.
    ...[63, 64, 65, 255, 256].map((n) => id + "y".repeat(n - id.length)),
    // 512 characters, nearly twice as many bytes.
    "\u00e9".repeat(512 - id.length) + id,
    // A single character, taken at random from 20,000, so that a key of another run is not met.
    String.fromCodePoint(0x4e00 + (Number.parseInt(id.slice(0, 4), 16) % 20_000))
  ]
}

export const keys: ReadonlyArray<Definition> = [
  {
    law: 11,
    name: "every key is a lock of its own, however awkward its characters and its length",
    heavy: true,
    run: Effect.fnUntraced(function*({ a, newRequest, b, capabilities, longTtl, take, within }) {
      const refuses = capabilities.refuses ?? (() => false)
      const all = awkwardKeys(crypto.randomUUID())
      assert.strictEqual(new Set(all).size, all.length, "the keys of this case differ")
      for (const key of all) {
        const problem = a.check(key, longTtl)
        assert.strictEqual(
          problem !== undefined,
          refuses(key),
          `check refuses what is declared: ${JSON.stringify(key)}`
        )
      }
      const requests = all.filter((key) => !refuses(key)).map((key) => newRequest(key))
      const inBatches = { concurrency: 8 } as const
      const run = Effect.gen(function*() {
        yield* Effect.forEach(
          requests,
          (request) => take(a, request, `a key that differs from all held ones is free: ${shown(request)}`),
          inBatches
        )
        yield* Effect.forEach(requests, (request) =>
          Effect.gen(function*() {
            const other = yield* b.tryAcquire(newRequest(request.key))
            assert.isTrue(Option.isNone(other), `the other client finds the same lock held: ${shown(request)}`)
          }), inBatches)
        // Releasing every other key frees these and no others.
        const [kept, released] = [requests.filter((_, i) => i % 2 === 0), requests.filter((_, i) => i % 2 === 1)]
        yield* Effect.forEach(released, (request) =>
          Effect.gen(function*() {
            assert.notStrictEqual(
              yield* a.release(request),
              "gone",
              `the release of a held key is not gone: ${shown(request)}`
            )
          }), inBatches)
        yield* Effect.forEach(kept, (request) =>
          Effect.gen(function*() {
            const still = yield* a.renew(request, { fresh: true })
            assert.isTrue(Option.isSome(still), `the release of other keys does not end ${shown(request)}`)
            const other = yield* b.tryAcquire(newRequest(request.key))
            assert.isTrue(Option.isNone(other), `the release of other keys does not free ${shown(request)}`)
          }), inBatches)
        yield* Effect.forEach(released, (request) =>
          Effect.gen(function*() {
            const next = newRequest(request.key)
            yield* take(b, next, `a released key is free: ${shown(request)}`)
            yield* b.release(next)
          }), inBatches)
        yield* Effect.forEach(kept, a.release, inBatches)
      })
      yield* within(run, 60_000, "all keys are held at once")
    })
  },
  {
    law: 4,
    name: "an owner may be any text",
    run: Effect.fnUntraced(
      function*({ a, newRequest, b, expectFree, expectHeld, key, lineUp, patience, take, within }) {
        const labels = [
          "",
          " ",
          "a b",
          "'; --",
          "\"",
          "\\",
          "{}",
          "%s",
          "*",
          "a/b",
          "a|b",
          "a:b",
          "a,b",
          "\n",
          "\0",
          "\u{1f512}"
        ]
        yield* Effect.forEach(labels, (label) =>
          Effect.gen(function*() {
            const k = key()
            const labelled = () => ({ ...newRequest(k), owner: `${label}/${crypto.randomUUID()}` })
            const holder = labelled()
            const waiter = labelled()
            const owner = JSON.stringify(holder.owner)
            yield* take(a, holder, `a free key is granted to ${owner}`)
            const waiting = yield* lineUp(b, waiter)
            assert.isTrue(Option.isSome(yield* a.renew(holder, { fresh: true })), `the grant of ${owner} is renewed`)
            assert.notStrictEqual(yield* a.release(holder), "gone", `the grant of ${owner} is released`)
            yield* within(Fiber.join(waiting), patience, `the next in line is served: ${owner}`)
            yield* expectHeld(k, `a key that ${owner} waited for is refused to others`)
            assert.notStrictEqual(yield* b.release(waiter), "gone", `the grant of ${owner} is released`)
            yield* expectFree(k, `the key of ${owner} is free`)
          }), { concurrency: 4, discard: true })
      }
    )
  }
]
