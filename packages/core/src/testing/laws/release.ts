import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"

export const release: ReadonlyArray<Definition> = [
  {
    law: 4,
    name: "only the owner releases",
    run: Effect.fnUntraced(function*({ a, b, expectHeld, key, newRequest, take }) {
      const k = key()
      const holder = newRequest(k)
      yield* take(a, holder, "a free key is granted")
      for (const client of [a, b]) {
        const stranger = newRequest(k)
        assert.notStrictEqual(yield* client.release(stranger), "released", "an owner that never asked releases nothing")
        const refused = newRequest(k)
        assert.isTrue(Option.isNone(yield* client.tryAcquire(refused)), "a held key is refused")
        assert.notStrictEqual(yield* client.release(refused), "released", "an owner that was refused releases nothing")
        const similar = { ...newRequest(k), owner: `${holder.owner}x` }
        assert.notStrictEqual(yield* client.release(similar), "released", "an owner of a similar name is another owner")
      }
      yield* expectHeld(k, "the releases of other owners do not free the key")
      assert.isTrue(Option.isSome(yield* a.renew(holder, { fresh: true })), "the releases of other owners end no grant")
      assert.notStrictEqual(yield* a.release(holder), "gone", "the release of a held key is not gone")
    })
  },
  {
    law: 4,
    name: "a release that arrives again is a no-op, also when another owner holds the key by now",
    run: Effect.fnUntraced(function*({ a, b, expectFree, expectHeld, key, newRequest, take }) {
      const k = key()
      const first = newRequest(k)
      const second = newRequest(k)
      yield* take(a, first, "a free key is granted")
      assert.notStrictEqual(yield* a.release(first), "gone", "the release of a held key is not gone")
      assert.notStrictEqual(yield* a.release({ ...first }), "released", "the second release releases nothing")
      yield* expectFree(k, "a released key is free")
      yield* take(b, second, "a released key is granted")
      assert.notStrictEqual(yield* a.release({ ...first }), "released", "a late release releases nothing")
      yield* expectHeld(k, "a late release does not free the key of the next holder")
      assert.isTrue(
        Option.isSome(yield* b.renew(second, { fresh: true })),
        "a late release does not end the next grant"
      )
      assert.notStrictEqual(yield* b.release(second), "gone", "the release of a held key is not gone")
      yield* expectFree(k, "a released key is free")
    })
  },
  {
    law: 4,
    name: "the release of an owner that never asked does nothing to a free key",
    run: Effect.fnUntraced(function*({ a, b, expectFree, key, newRequest }) {
      const k = key()
      for (const client of [a, b]) {
        const stranger = newRequest(k)
        assert.notStrictEqual(yield* client.release(stranger), "released", "an owner that never asked releases nothing")
      }
      yield* expectFree(k, "a free key stays free")
    })
  },
  {
    law: 4,
    name: "release leaves the line",
    run: Effect.fnUntraced(
      function*({ a, b, expectFree, key, lineUp, newRequest, patience, take, within }) {
        for (const client of [a, b]) {
          const k = key()
          const holder = newRequest(k)
          const waiter = newRequest(k)
          yield* take(a, holder, "a free key is granted")
          const waiting = yield* lineUp(client, waiter)
          yield* within(Fiber.interrupt(waiting), patience, "an interrupted acquire returns at once")
          yield* client.release(waiter)
          assert.notStrictEqual(yield* a.release(holder), "gone", "the release of a held key is not gone")
          yield* expectFree(k, "a waiter that left the line does not get the key")
        }
      }
    )
  }
]
