import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"
import { isPending } from "../Kit.ts"

export const renew: ReadonlyArray<Definition> = [
  {
    law: 3,
    name: "a renewed lease outlives its ttl",
    run: Effect.fnUntraced(
      function*({ a, attempt, elapse, expectFree, expectHeld, granularity, key, minTtl, slack, take }) {
        const k = key()
        const holder = attempt(k, minTtl)
        yield* take(a, holder, "a free key is granted")
        const third = Duration.divideUnsafe(minTtl, 3)
        const enough = Duration.toMillis(Duration.sum(minTtl, Duration.sum(granularity, slack))) + 1
        for (let elapsed = 0; elapsed <= enough; elapsed += Duration.toMillis(third)) {
          yield* elapse(third)
          assert.isTrue(Option.isSome(yield* a.renew(holder)), "a lease that is renewed in time stays")
        }
        yield* expectHeld(k, "a renewed lease still excludes others after its first ttl")
        assert.deepStrictEqual(holder.losses, [], "the holder of a renewed lease is not told of a loss")
        assert.isTrue(yield* a.release(holder), "the release of a renewed lease answers true")
        yield* expectFree(k, "a released key is free")
      }
    )
  },
  {
    law: 3,
    name: "a lease that ended is not renewed, and renewing it does not create it again",
    needs: ["tenure lease", ({ tenure }) => tenure === "lease"],
    run: Effect.fnUntraced(
      function*({ a, attempt, elapse, expectFree, granularity, key, minTtl, slack, take }) {
        const k = key()
        const holder = attempt(k, minTtl)
        yield* take(a, holder, "a free key is granted")
        yield* elapse(Duration.sum(minTtl, Duration.sum(granularity, slack)))
        assert.isTrue(Option.isNone(yield* a.renew(holder)), "a lease that ended is not renewed")
        yield* expectFree(k, "renewing a lease that ended does not create it again")
      }
    )
  },
  {
    law: 3,
    name: "a lease that went to somebody else is not renewed",
    needs: ["tenure lease", ({ tenure }) => tenure === "lease"],
    run: Effect.fnUntraced(
      function*({ a, attempt, b, granularity, key, minTtl, patience, take, within }) {
        const k = key()
        const holder = attempt(k, minTtl)
        const next = attempt(k)
        yield* take(a, holder, "a free key is granted")
        const limit = Duration.sum(Duration.sum(minTtl, granularity), patience)
        yield* within(b.acquire(next), limit, "the next in line has the key when the lease ends")
        assert.isTrue(Option.isNone(yield* a.renew(holder)), "a lease that went to somebody else is not renewed")
        assert.isFalse(yield* a.release(holder), "the release of a lease that went to somebody else answers false")
        assert.isTrue(
          Option.isSome(yield* b.renew(next)),
          "a late renewal and release of the last holder change nothing"
        )
        yield* b.release(next)
      }
    )
  },
  {
    law: 3,
    name: "renew by somebody who does not hold the key changes nothing",
    run: Effect.fnUntraced(function*({ a, attempt, b, expectFree, key, lineUp, patience, take, within }) {
      const k = key()
      const never = attempt(k)
      assert.isTrue(Option.isNone(yield* a.renew(never)), "renew of a free key grants nothing")
      yield* expectFree(k, "renew of a free key does not take it")
      const holder = attempt(k)
      yield* take(a, holder, "a free key is granted")
      for (const client of [a, b]) {
        assert.isTrue(Option.isNone(yield* client.renew(attempt(k))), "a stranger can not renew")
      }
      const waiter = attempt(k)
      const waiting = yield* lineUp(b, waiter)
      assert.isTrue(Option.isNone(yield* b.renew(waiter)), "who stands in line does not hold the key yet")
      assert.isTrue(isPending(waiting), "renew does not let anybody in")
      assert.isTrue(Option.isSome(yield* a.renew(holder)), "the renewals of others do not end a lease")
      yield* a.release(holder)
      yield* within(Fiber.join(waiting), patience, "a renewal does not cost the place in line")
      yield* b.release(waiter)
    })
  },
  {
    law: 3,
    name: "renew after release is none, also when both are sent at once",
    run: Effect.fnUntraced(function*({ a, attempt, b, expectFree, key, pause, take }) {
      const once = Effect.fnUntraced(function*(i: number) {
        const client = i % 2 === 0 ? a : b
        const k = key()
        const holder = attempt(k)
        yield* take(client, holder, "a free key is granted")
        const renewing = yield* Effect.forkChild(client.renew(holder), { startImmediately: true })
        yield* pause(i)
        const [released] = yield* Effect.all([client.release(holder), client.renew(holder)], { concurrency: 2 })
        yield* Fiber.join(renewing)
        assert.isTrue(released, "the release of a held key answers true")
        yield* expectFree(k, "a renewal beside the release does not keep the key")
        assert.isTrue(Option.isNone(yield* client.renew(holder)), "a released lease is not renewed")
        yield* expectFree(k, "a renewal after the release does not take the key")
      })
      yield* Effect.forEach([0, 1, 2, 3, 4, 5, 6, 7], once, { concurrency: 4, discard: true })
    })
  }
]
