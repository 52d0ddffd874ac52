import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"
import { endOf, isPending } from "../Kit.ts"

export const exclusion: ReadonlyArray<Definition> = [
  {
    law: 1,
    name: "a held key is refused to every other owner, whichever client asks",
    run: Effect.fnUntraced(function*({ a, attempt, b, expectFree, expectHeld, key, take }) {
      const k = key()
      const first = attempt(k)
      yield* take(a, first, "a free key is granted")
      yield* expectHeld(k, "a key that client a holds is refused")
      assert.isTrue(yield* a.release(first), "the release of a held key answers true")
      const second = attempt(k)
      yield* take(b, second, "a released key is granted")
      yield* expectHeld(k, "a key that client b holds is refused")
      yield* b.release(second)
      yield* expectFree(k, "a released key is free")
    })
  },
  {
    law: 1,
    name: "acquire waits for the holder and then excludes everybody else",
    run: Effect.fnUntraced(
      function*({ a, attempt, b, expectFree, expectHeld, key, lineUp, patience, settle, take, within }) {
        const k = key()
        const holder = attempt(k)
        const waiter = attempt(k)
        yield* take(a, holder, "a free key is granted")
        const waiting = yield* lineUp(b, waiter)
        yield* settle
        assert.isTrue(isPending(waiting), "acquire does not return while another owner holds the key")
        assert.isTrue(yield* a.release(holder), "the release of a held key answers true")
        yield* within(Fiber.join(waiting), patience, "a release lets the next in line have the key")
        yield* expectHeld(k, "a key that was waited for is refused to others")
        assert.isTrue(yield* b.release(waiter), "the release of a key that was waited for answers true")
        yield* expectFree(k, "a key that was waited for is free after its release")
      }
    )
  },
  {
    law: 1,
    name: "acquire of a free key does not wait",
    run: Effect.fnUntraced(function*({ a, attempt, expectFree, expectHeld, key, patience, within }) {
      const k = key()
      const only = attempt(k)
      yield* within(a.acquire(only), patience, "acquire of a free key is granted")
      yield* expectHeld(k, "an acquired key is refused to others")
      assert.isTrue(yield* a.release(only), "the release of a held key answers true")
      yield* expectFree(k, "a released key is free")
    })
  },
  {
    law: 8,
    name: "a grant says truly from when and for how long it is good",
    run: Effect.fnUntraced(
      function*(
        { a, attempt, b, capabilities, elapse, granularity, key, lineUp, minTtl, now, patience, take, within }
      ) {
        const k = key()
        for (const ttl of [attempt(k).ttl, minTtl]) {
          yield* elapse(minTtl)
          const before = yield* now
          const request = attempt(k, ttl)
          const grant = yield* take(a, request, "a free key is granted")
          const after = yield* now
          assert.isTrue(grant.validFrom <= after, "validFrom is not after the answer")
          assert.isTrue(endOf(grant) > after, "a grant is still good when it is answered")
          if (capabilities.tenure === "lease") {
            assert.isTrue(grant.validFrom >= before, "validFrom of a lease of its own is not before the request")
          }
          if (capabilities.ttl === "request") {
            const given = endOf(grant) - grant.validFrom
            const asked = endOf({ validFrom: 0n, ttl })
            const most = asked * 2n + endOf({ validFrom: 0n, ttl: granularity })
            assert.isTrue(given >= asked * 9n / 10n && given <= most, "the ttl is about what was asked for")
          }
          const validity = yield* a.renew(request)
          assert.isTrue(Option.isSome(validity), "a lease that did not end is renewed")
          if (Option.isSome(validity)) {
            assert.isTrue(validity.value.validFrom <= (yield* now), "validFrom is not after the answer to renew")
            assert.isTrue(validity.value.validFrom >= grant.validFrom, "renew does not move validFrom back")
            assert.isTrue(endOf(validity.value) > (yield* now), "a renewed lease is still good when it is answered")
          }
          const waiter = attempt(k)
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
        }
      }
    )
  },
  {
    law: 1,
    name: "the declared tenure is the backend's, and check accepts ordinary requests",
    run: ({ a, b, capabilities, key, longTtl, minTtl }) =>
      Effect.sync(() => {
        for (const client of [a, b]) {
          assert.strictEqual(client.tenure, capabilities.tenure, "the declared tenure is the backend's")
          for (const ttl of [minTtl, longTtl]) {
            assert.isUndefined(client.check(key(), ttl), "check has nothing against an ordinary key and ttl")
          }
        }
      })
  }
]
