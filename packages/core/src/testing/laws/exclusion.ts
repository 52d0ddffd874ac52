import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"
import { endOf, isPending, type Kit } from "../Kit.ts"

/** A grant of this ttl tells from when and for how long it is good. */
const isGood = (
  { a, b, capabilities, elapse, granularity, key, lineUp, minTtl, newRequest, now, patience, take, within }: Kit,
  ttl: number,
  believe: (end: number) => void
) =>
  Effect.gen(function*() {
    const k = key()
    yield* elapse(minTtl)
    const before = yield* now
    const request = newRequest(k, { ttl })
    const grant = yield* take(a, request, "a free key is granted")
    believe(endOf(grant))
    const after = yield* now
    assert.isTrue(grant.validFrom <= after, "validFrom is not after the answer")
    assert.isTrue(endOf(grant) > after, "a grant is still good when it is answered")
    if (capabilities.freedBy === "ttl") {
      assert.isTrue(
        grant.validFrom >= before,
        "validFrom is not before the request, unless a session carries the grant"
      )
    }
    if (capabilities.ttl === "request") {
      const given = endOf(grant) - grant.validFrom
      const asked = ttl
      const most = asked * 2 + granularity
      assert.isTrue(given >= asked * 0.9 && given <= most, "the ttl is about what was asked for")
    }
    const validity = yield* a.renew(request, { fresh: true })
    assert.isTrue(Option.isSome(validity), "a grant that did not end is renewed")
    if (Option.isSome(validity)) {
      assert.isTrue(validity.value.validFrom <= (yield* now), "validFrom is not after the answer to renew")
      assert.isTrue(validity.value.validFrom >= grant.validFrom, "renew does not move validFrom back")
      assert.isTrue(endOf(validity.value) > (yield* now), "a renewal is still good when it is answered")
    }
    const waiter = newRequest(k)
    const waiting = yield* lineUp(b, waiter)
    yield* a.release(request)
    const handedOver = yield* within(
      Fiber.join(waiting),
      patience,
      "a release lets the next in line have the key"
    )
    const then = yield* now
    assert.isTrue(handedOver.validFrom <= then, "validFrom is not after the answer of acquire")
    assert.isTrue(endOf(handedOver) > then, "a grant that was waited for is still good when it is answered")
    yield* b.release(waiter)
  })

export const exclusion: ReadonlyArray<Definition> = [
  {
    law: 1,
    name: "a held key is refused to every other owner, whichever client asks",
    run: Effect.fnUntraced(function*({ a, newRequest, b, expectFree, expectHeld, key, take }) {
      const k = key()
      const first = newRequest(k)
      yield* take(a, first, "a free key is granted")
      yield* expectHeld(k, "a key that client a holds is refused")
      assert.notStrictEqual(yield* a.release(first), "gone", "the release of a held key is not gone")
      const second = newRequest(k)
      yield* take(b, second, "a released key is granted")
      yield* expectHeld(k, "a key that client b holds is refused")
      yield* b.release(second)
      yield* expectFree(k, "a released key is free")
    })
  },
  {
    law: 1,
    name: "acquire waits for the holder and then excludes every other owner",
    run: Effect.fnUntraced(
      function*({ a, newRequest, b, expectFree, expectHeld, key, lineUp, patience, settle, take, within }) {
        const k = key()
        const holder = newRequest(k)
        const waiter = newRequest(k)
        yield* take(a, holder, "a free key is granted")
        const waiting = yield* lineUp(b, waiter)
        yield* settle
        assert.isTrue(isPending(waiting), "acquire does not return while another owner holds the key")
        assert.notStrictEqual(yield* a.release(holder), "gone", "the release of a held key is not gone")
        yield* within(Fiber.join(waiting), patience, "a release lets the next in line have the key")
        yield* expectHeld(k, "a key that was waited for is refused to others")
        assert.notStrictEqual(yield* b.release(waiter), "gone", "the release of a key that was waited for is not gone")
        yield* expectFree(k, "a key that was waited for is free after its release")
      }
    )
  },
  {
    law: 1,
    name: "acquire of a free key does not wait",
    run: Effect.fnUntraced(function*({ a, newRequest, expectFree, expectHeld, key, patience, within }) {
      const k = key()
      const only = newRequest(k)
      yield* within(a.acquire(only), patience, "acquire of a free key is granted")
      yield* expectHeld(k, "an acquired key is refused to others")
      assert.notStrictEqual(yield* a.release(only), "gone", "the release of a held key is not gone")
      yield* expectFree(k, "a released key is free")
    })
  },
  {
    law: 8,
    name: "a grant tells from when and for how long it is good, and it is",
    run: (kit) =>
      Effect.gen(function*() {
        yield* isGood(kit, kit.longTtl, () => {})
        yield* kit.renewing((believe, ttl) => isGood(kit, ttl, believe))
      })
  },
  {
    law: 1,
    name: "freedBy and tellsWanted are as declared, and check accepts ordinary requests",
    run: ({ a, b, capabilities, key, longTtl, minTtl }) =>
      Effect.sync(() => {
        for (const client of [a, b]) {
          assert.strictEqual(client.freedBy, capabilities.freedBy, "freedBy is as declared")
          assert.strictEqual(client.tellsWanted, capabilities.tellsWanted === true, "tellsWanted is as declared")
          for (const ttl of [minTtl, longTtl]) {
            assert.isUndefined(client.check(key(), ttl), "check accepts an ordinary key and ttl")
          }
        }
      })
  }
]
