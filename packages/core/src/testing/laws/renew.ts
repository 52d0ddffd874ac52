import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"
import { endOf, isPending } from "../Kit.ts"

const freedByTtl: Definition["needs"] = ["freedBy ttl", ({ freedBy }) => freedBy === "ttl"]

export const renew: ReadonlyArray<Definition> = [
  {
    law: 3,
    name: "a grant that is renewed outlives its ttl",
    run: Effect.fnUntraced(
      function*({ a, elapse, expectFree, expectHeld, granularity, key, margin, newRequest, renewing, take }) {
        const k = yield* renewing(Effect.fnUntraced(function*(believe, ttl) {
          const k = key()
          const holder = newRequest(k, { ttl })
          believe(endOf(yield* take(a, holder, "a free key is granted")))
          const third = ttl / 3
          for (let elapsed = 0; elapsed <= ttl + granularity + margin + 1; elapsed += third) {
            yield* elapse(third)
            const renewed = yield* a.renew(holder, { fresh: true })
            believe(endOf(Option.getOrElse(renewed, () => assert.fail("a grant that is renewed in time goes on"))))
          }
          yield* expectHeld(k, "a renewed grant excludes others after its first ttl")
          assert.deepStrictEqual(holder.losses, [], "the holder of a renewed grant is not told of a loss")
          assert.notStrictEqual(yield* a.release(holder), "gone", "the release of a renewed grant is not gone")
          return k
        }))
        yield* expectFree(k, "a released key is free")
      }
    )
  },
  {
    law: 3,
    name: "a grant is renewed for the ttl that its request has then",
    needs: freedByTtl,
    run: Effect.fnUntraced(
      function*({ a, elapse, expectHeld, granularity, key, longTtl, margin, minTtl, newRequest, take }) {
        const holder = newRequest(key(), { ttl: minTtl })
        yield* take(a, holder, "a free key is granted")
        holder.ttl = longTtl
        const renewed = Option.getOrElse(
          yield* a.renew(holder, { fresh: true }),
          () => assert.fail("a grant is renewed in time")
        )
        assert.isAtLeast(renewed.ttl, longTtl, "the answer tells of the longer ttl")
        yield* elapse(minTtl + granularity + margin)
        yield* expectHeld(holder.key, "the key is taken for the longer ttl")
        assert.notStrictEqual(yield* a.release(holder), "gone", "the release of a held key is not gone")
      }
    )
  },
  {
    law: 3,
    name: "a grant that ended is not renewed, and the renewal does not create it again",
    needs: freedByTtl,
    run: Effect.fnUntraced(
      function*({ a, elapse, expectFree, granularity, key, margin, minTtl, newRequest, take }) {
        const k = key()
        const holder = newRequest(k, { ttl: minTtl })
        yield* take(a, holder, "a free key is granted")
        yield* elapse(minTtl + granularity + margin)
        assert.isTrue(Option.isNone(yield* a.renew(holder, { fresh: true })), "a grant that ended is not renewed")
        yield* expectFree(k, "the renewal of a grant that ended does not create it again")
      }
    )
  },
  {
    law: 3,
    name: "a grant is not renewed once another owner has the key",
    needs: freedByTtl,
    run: Effect.fnUntraced(
      function*({ a, b, endLimit, key, minTtl, newRequest, take, within }) {
        const k = key()
        const holder = newRequest(k, { ttl: minTtl })
        const next = newRequest(k)
        yield* take(a, holder, "a free key is granted")
        yield* within(b.acquire(next), endLimit, "the next in line has the key when the grant ends")
        const renewed = yield* a.renew(holder, { fresh: true })
        assert.isTrue(Option.isNone(renewed), "a grant is not renewed once another owner has the key")
        assert.notStrictEqual(yield* a.release(holder), "released", "a grant that ended is not released")
        assert.isTrue(
          Option.isSome(yield* b.renew(next, { fresh: true })),
          "a late renewal and a late release of the last holder change nothing"
        )
        yield* b.release(next)
      }
    )
  },
  {
    law: 3,
    name: "a renewal of an owner that does not hold the key changes nothing",
    run: Effect.fnUntraced(function*({ a, b, expectFree, key, lineUp, newRequest, patience, take, within }) {
      const k = key()
      const never = newRequest(k)
      assert.isTrue(Option.isNone(yield* a.renew(never, { fresh: true })), "the renewal of a free key grants nothing")
      yield* expectFree(k, "the renewal of a free key does not take it")
      const holder = newRequest(k)
      yield* take(a, holder, "a free key is granted")
      for (const client of [a, b]) {
        const renewed = yield* client.renew(newRequest(k), { fresh: true })
        assert.isTrue(Option.isNone(renewed), "an owner that was not granted the key does not renew it")
      }
      const waiter = newRequest(k)
      const waiting = yield* lineUp(b, waiter)
      assert.isTrue(Option.isNone(yield* b.renew({ ...waiter }, { fresh: true })), "a waiter does not hold the key yet")
      assert.isTrue(isPending(waiting), "a renewal lets no waiter in")
      assert.isTrue(Option.isSome(yield* a.renew(holder, { fresh: true })), "the renewals of others do not end a grant")
      yield* a.release(holder)
      yield* within(Fiber.join(waiting), patience, "a renewal does not cost the place in line")
      yield* b.release(waiter)
    })
  },
  {
    law: 3,
    name: "a renewal that arrives beside or after the release does not take the key",
    run: Effect.fnUntraced(function*({ a, b, expectFree, key, newRequest, pause, take }) {
      const once = Effect.fnUntraced(function*(i: number) {
        const client = i % 2 === 0 ? a : b
        const k = key()
        const holder = newRequest(k)
        yield* take(client, holder, "a free key is granted")
        const renewing = yield* Effect.forkChild(client.renew(holder, { fresh: true }), { startImmediately: true })
        yield* pause(i)
        const released = yield* client.release(holder)
        yield* Fiber.join(renewing)
        assert.notStrictEqual(released, "gone", "the release of a held key is not gone")
        yield* expectFree(k, "a renewal beside the release does not keep the key")
        const late = yield* client.renew({ ...holder }, { fresh: true })
        assert.isTrue(Option.isNone(late), "a released grant is not renewed")
        yield* expectFree(k, "a renewal after the release does not take the key")
      })
      yield* Effect.forEach([0, 1, 2, 3, 4, 5, 6, 7], once, { concurrency: 4, discard: true })
    })
  }
]
