import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"

const tellsWanted: Definition["needs"] = ["tellsWanted", (capabilities) => capabilities.tellsWanted === true]

export const wanted: ReadonlyArray<Definition> = [
  {
    law: 9,
    name: "a holder is told when another client waits for its key",
    needs: tellsWanted,
    run: Effect.fnUntraced(function*({ a, b, key, lineUp, newRequest, patience, take, within }) {
      for (const [client, other] of [[a, b], [b, a]] as const) {
        const k = key()
        const holder = newRequest(k)
        const waiter = newRequest(k)
        yield* take(client, holder, "a free key is granted")
        const waiting = yield* lineUp(other, waiter)
        yield* within(Deferred.await(holder.wanted), patience, "the holder is told that another client waits")
        yield* client.release(holder)
        yield* within(Fiber.join(waiting), patience, "a release lets the next in line have the key")
        yield* other.release(waiter)
      }
    })
  },
  {
    law: 9,
    name: "a holder is told of a waiter that came before its grant",
    needs: ["tellsWanted and fifo", ({ fifo, tellsWanted }) => fifo && tellsWanted === true],
    run: Effect.fnUntraced(function*({ a, b, key, lineUp, newRequest, patience, take, within }) {
      const k = key()
      const [holder, next, last] = [newRequest(k), newRequest(k), newRequest(k)]
      yield* take(a, holder, "a free key is granted")
      const nextWaits = yield* lineUp(b, next)
      const lastWaits = yield* lineUp(a, last)
      assert.isFalse(Deferred.isDoneUnsafe(next.wanted), "a waiter is not told that its key is wanted")
      yield* a.release(holder)
      yield* within(Fiber.join(nextWaits), patience, "a release lets the next in line have the key")
      yield* within(Deferred.await(next.wanted), patience, "the new holder is told that another client waits")
      yield* b.release(next)
      yield* within(Fiber.join(lastWaits), patience, "a release lets the next in line have the key")
      yield* a.release(last)
    })
  },
  {
    law: 9,
    name: "a holder is not told that its key is wanted when no client waits",
    run: Effect.fnUntraced(function*({ a, b, key, newRequest, settle, take }) {
      const k = key()
      const holder = newRequest(k)
      yield* take(a, holder, "a free key is granted")
      assert.isTrue(Option.isNone(yield* b.tryAcquire(newRequest(k))), "a held key is refused")
      assert.isTrue(Option.isSome(yield* a.renew(holder, { fresh: true })), "a grant that did not end is renewed")
      yield* settle
      assert.isFalse(Deferred.isDoneUnsafe(holder.wanted), "a request that does not wait is not told to the holder")
      yield* a.release(holder)
      yield* settle
      assert.isFalse(Deferred.isDoneUnsafe(holder.wanted), "a release does not tell that the key is wanted")
    })
  }
]
