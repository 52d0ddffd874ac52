import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"

export const lost: ReadonlyArray<Definition> = [
  {
    law: 9,
    name: "the holder is told when its grant is lost",
    needs: ["pushesLoss and revocable", ({ pushesLoss, revocable }) => pushesLoss && revocable !== undefined],
    run: Effect.fnUntraced(
      function*({ endLimit, key, longTtl, newRequest, revocable, take, within }) {
        const { client, revoke } = yield* revocable
        assert.isTrue(endLimit < longTtl, "minTtl is short enough to tell a push from the end of the ttl")
        const released = newRequest(key())
        yield* take(client, released, "a free key is granted")
        assert.notStrictEqual(yield* client.release(released), "gone", "the release of a held key is not gone")
        const holder = newRequest(key())
        yield* take(client, holder, "a free key is granted")
        yield* revoke(holder)
        yield* within(Deferred.await(holder.lost), endLimit, "a loss is told to the holder")
        assert.deepStrictEqual(released.losses, [], "a request that was released before is not told of a loss")
      }
    )
  },
  {
    law: 9,
    name: "a release and a refusal are not a loss",
    run: Effect.fnUntraced(
      function*(
        { a, b, elapse, expectFree, granularity, key, lineUp, margin, minTtl, newRequest, patience, take, within }
      ) {
        const k = key()
        const holder = newRequest(k, { ttl: minTtl })
        const waiter = newRequest(k, { ttl: minTtl })
        const refused = newRequest(k)
        yield* take(a, holder, "a free key is granted")
        const waiting = yield* lineUp(b, waiter)
        assert.isTrue(Option.isNone(yield* a.tryAcquire(refused)), "a held key is refused")
        yield* a.release(holder)
        yield* within(Fiber.join(waiting), patience, "a release lets the next in line have the key")
        yield* b.release(waiter)
        yield* elapse(minTtl + granularity + margin)
        for (const request of [holder, waiter, refused]) {
          assert.deepStrictEqual(request.losses, [], "a request that was released or refused is not told of a loss")
        }
        yield* expectFree(k, "a released key is free")
      }
    )
  },
  {
    law: 3,
    name: "a grant that was ended on the server is not renewed, and another owner can have the key",
    needs: ["revocable", ({ revocable }) => revocable !== undefined],
    run: Effect.fnUntraced(
      function*({ b, endLimit, expectHeld, key, minTtl, newRequest, revocable, take, until, within }) {
        const { client, revoke } = yield* revocable
        const holder = newRequest(key(), { ttl: minTtl })
        yield* take(client, holder, "a free key is granted")
        yield* revoke(holder)
        // A broken connection may answer with an error first.
        const isLost = Effect.map(
          Effect.exit(client.renew(holder, { fresh: true })),
          (exit) => exit._tag === "Success" && Option.isNone(exit.value)
        )
        yield* until(isLost, endLimit, "a grant that was ended on the server is not renewed")
        const next = newRequest(holder.key)
        yield* within(b.acquire(next), endLimit, "the key of a grant that was ended is free")
        assert.notStrictEqual(yield* client.release(holder), "released", "a grant that was ended is not released")
        yield* expectHeld(holder.key, "the release of a grant that was ended does not free the key of the next holder")
        yield* b.release(next)
      }
    )
  }
]
