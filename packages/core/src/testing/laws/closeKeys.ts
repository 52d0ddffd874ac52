import { assert } from "@effect/vitest"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"
import { isPending } from "../Kit.ts"

/** A key, and keys that a store could take for parts, companions or copies of it. */
type MakeFamily = (id: string) => readonly [key: string, ...others: ReadonlyArray<string>]

const ends = ["{}", "/b", "/", "%2Fb", "x", " ", "\t", "\n", "\0", "*", "?", "%", "_", ":"]

const companionsOfSome = [":line", ":queue", ":waiters", ":void", ":token", ":fence", ":lock"]

const parts = ["/lock", "/lock-0000000000", "/holder"]

const families: ReadonlyArray<MakeFamily> = [
  (id) => [id, ...[...ends, ...companionsOfSome, ...parts].map((end) => id + end)],
  (id) => [id, ...["{}", "/", " "].map((start) => start + id), id.slice(0, -1), id.toUpperCase()],
  (id) => [id, `{${id}}`, `x{${id}}`, `{${id}}x`, `{{${id}}}`],
  (id) => [`{${id}}a`, `{${id}}b`, `a{${id}}`],
  (id) => [`a{${id}}`, `b{${id}}`],
  (id) => [`${id}/b`, `${id}/b/c`, `${id}//b`, `${id}%2Fb`],
  (id) => [`${id}a`, `${id}A`],
  (id) => [`${id}\u00e9`, `${id}e\u0301`, `${id}e`],
  (id) => [`${id}1`, `${id}01`]
]

/** Each of them is waited for, and a client may have few connections to wait on. */
const mostAtOnce = 8

export const closeKeys: ReadonlyArray<Definition> = [
  {
    law: 11,
    name: "a key that is held and waited for has nothing to do with a key that is like it",
    heavy: true,
    run: Effect.fnUntraced(function*(kit) {
      const { a, b, capabilities, expectFree, newRequest, patience, settle, take, within } = kit
      /** Has `key` held by one client and waited for by the other, and answers how that goes on. */
      const occupy = Effect.fnUntraced(function*(key: string, property: string) {
        const [holder, waiter] = [newRequest(key), newRequest(key)]
        yield* take(a, holder, property)
        const waiting = yield* Effect.forkScoped(b.acquire(waiter), { startImmediately: true })
        const handOver = Effect.gen(function*() {
          assert.isTrue(Option.isSome(yield* a.renew(holder, { fresh: true })), `a grant outlasts others: ${property}`)
          assert.isTrue(isPending(waiting), `a release of one lets no waiter have the other: ${property}`)
          yield* a.release(holder)
          yield* within(Fiber.join(waiting), patience, `the line goes on: ${property}`)
        })
        const end = Effect.gen(function*() {
          assert.isTrue(Option.isSome(yield* b.renew(waiter, { fresh: true })), `all are held at once: ${property}`)
          yield* b.release(waiter)
        })
        return { handOver, end }
      })
      const passBy = Effect.fnUntraced(function*(key: string, property: string) {
        const request = newRequest(key)
        yield* take(b, request, property)
        assert.notStrictEqual(yield* b.release(request), "gone", `what is held is released: ${property}`)
      })
      const apart = Effect.fnUntraced(function*(key: string, others: ReadonlyArray<string>) {
        const beside = (other: string) => `${JSON.stringify(other)} is free beside ${JSON.stringify(key)}`
        const first = yield* occupy(key, `${JSON.stringify(key)} is free`)
        yield* settle
        yield* Effect.forEach(others, (other) => passBy(other, beside(other)))
        const rest = yield* Effect.forEach(others, (other) => occupy(other, beside(other)))
        yield* settle
        yield* first.handOver
        yield* first.end
        yield* expectFree(key, `${JSON.stringify(key)} is free beside ${JSON.stringify(others)}`)
        yield* Effect.forEach(rest, ({ handOver }) => handOver)
        yield* Effect.forEach(rest, ({ end }) => end)
      })
      const companions = capabilities.companions ?? (() => [])
      const refuses = capabilities.refuses ?? (() => false)
      const groups = [
        ...families,
        (id: string): ReturnType<MakeFamily> => [id, ...companions(id).flatMap((one) => [one, `{${one}}`])]
      ].flatMap((family) => {
        const [key, ...others] = family(crypto.randomUUID())
        const accepted = others.filter((other) => !refuses(other))
        return refuses(key) ? [] : Arr.chunksOf(accepted, mostAtOnce).map((some) => ({ key, some }))
      })
      yield* Effect.forEach(groups, ({ key, some }) => apart(key, some), { discard: true })
    })
  }
]
