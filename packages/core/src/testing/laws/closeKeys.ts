import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"
import { isPending } from "../Kit.ts"

type MakePair = (id: string) => readonly [string, string]

/** Keys that a store could take for parts, companions or copies of one another. */
const closePairs: ReadonlyArray<MakePair> = [
  ...["{}", "/b", "/", "%2Fb", "x", " ", "\t", "\n", "\0", "*", "?", "%", "_", ":"].map(
    (end): MakePair => (id) => [id, id + end]
  ),
  ...[":line", ":queue", ":waiters", ":void", ":token", ":fence", ":lock", "/lock", "/lock-0000000000", "/holder"]
    .map((end): MakePair => (id) => [id, id + end]),
  ...["{}", "/", " "].map((start): MakePair => (id) => [id, start + id]),
  (id) => [id, `{${id}}`],
  (id) => [id, `x{${id}}`],
  (id) => [id, `{${id}}x`],
  (id) => [id, `{{${id}}}`],
  (id) => [id, id.slice(0, -1)],
  (id) => [id, id.toUpperCase()],
  (id) => [`{${id}}a`, `{${id}}b`],
  (id) => [`a{${id}}`, `b{${id}}`],
  (id) => [`{${id}}a`, `a{${id}}`],
  (id) => [`${id}/b`, `${id}/b/c`],
  (id) => [`${id}/b`, `${id}//b`],
  (id) => [`${id}/b`, `${id}%2Fb`],
  (id) => [`${id}a`, `${id}A`],
  (id) => [`${id}\u00e9`, `${id}e\u0301`],
  (id) => [`${id}\u00e9`, `${id}e`],
  (id) => [`${id}1`, `${id}01`]
]

export const closeKeys: ReadonlyArray<Definition> = [
  {
    law: 11,
    name: "a key that is held and waited for has nothing to do with a key that is like it",
    heavy: true,
    run: Effect.fnUntraced(function*(kit) {
      const { a, b, capabilities, expectFree, newRequest, patience, settle, take, within } = kit
      const apart = Effect.fnUntraced(function*(x: string, y: string) {
        const pair = `${JSON.stringify(x)} and ${JSON.stringify(y)}`
        const [holder, waiter] = [newRequest(x), newRequest(x)]
        const [otherHolder, otherWaiter] = [newRequest(y), newRequest(y)]
        yield* take(a, holder, `a free key is granted: ${pair}`)
        const waiting = yield* Effect.forkScoped(b.acquire(waiter), { startImmediately: true })
        yield* settle
        for (const client of [b, a]) {
          const other = newRequest(y)
          yield* take(client, other, `one is free while the other is held and waited for: ${pair}`)
          assert.isTrue(Option.isSome(yield* client.renew(other, { fresh: true })), `its grant is renewed: ${pair}`)
          assert.notStrictEqual(yield* client.release(other), "gone", `its grant is released: ${pair}`)
        }
        yield* take(b, otherHolder, `one is free again after its release: ${pair}`)
        const otherWaiting = yield* Effect.forkScoped(a.acquire(otherWaiter), { startImmediately: true })
        yield* settle
        assert.isTrue(isPending(waiting), `a release of one lets no waiter have the other: ${pair}`)
        yield* a.release(holder)
        yield* within(Fiber.join(waiting), patience, `both are waited for at once: ${pair}`)
        assert.isTrue(isPending(otherWaiting), `a release of one lets no waiter have the other: ${pair}`)
        assert.isTrue(
          Option.isSome(yield* b.renew(otherHolder, { fresh: true })),
          `it ends no grant of the other: ${pair}`
        )
        yield* b.release(otherHolder)
        yield* within(Fiber.join(otherWaiting), patience, `both lines go on: ${pair}`)
        assert.isTrue(Option.isSome(yield* b.renew(waiter, { fresh: true })), `both are held at once: ${pair}`)
        yield* b.release(waiter)
        yield* a.release(otherWaiter)
        yield* expectFree(x, `both are free afterwards: ${pair}`)
        yield* expectFree(y, `both are free afterwards: ${pair}`)
      })
      const companions = capabilities.companions ?? (() => [])
      const besideCompanions = companions("k").flatMap((_, i): ReadonlyArray<MakePair> => [
        (id) => [id, companions(id)[i] ?? id],
        (id) => [id, `{${companions(id)[i] ?? id}}`]
      ])
      const refuses = capabilities.refuses ?? (() => false)
      const pairs = [...closePairs, ...besideCompanions].flatMap((pair) => {
        const [x, y] = pair(crypto.randomUUID())
        const [z, w] = pair(crypto.randomUUID())
        return [[x, y], [w, z]] as const
      }).filter((pair) => !pair.some(refuses))
      yield* Effect.forEach(pairs, ([x, y]) => apart(x, y), { concurrency: 8, discard: true })
    })
  }
]
