import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"

export const release: ReadonlyArray<Definition> = [
  {
    law: 4,
    name: "only the owner releases",
    run: Effect.fnUntraced(function*({ a, attempt, b, expectHeld, key, take }) {
      const k = key()
      const holder = attempt(k)
      yield* take(a, holder, "a free key is granted")
      for (const client of [a, b]) {
        assert.isFalse(yield* client.release(attempt(k)), "the release of an owner that never asked answers false")
        const refused = attempt(k)
        assert.isTrue(Option.isNone(yield* client.tryAcquire(refused)), "a held key is refused")
        assert.isFalse(yield* client.release(refused), "the release of an owner that was refused answers false")
        const similar = { ...attempt(k), owner: `${holder.owner}x` }
        assert.isFalse(yield* client.release(similar), "an owner with a similar name is another owner")
      }
      yield* expectHeld(k, "the releases of others do not free the key")
      assert.isTrue(Option.isSome(yield* a.renew(holder)), "the releases of others do not end the lease")
      assert.isTrue(yield* a.release(holder), "the release of a held key answers true")
    })
  },
  {
    law: 4,
    name: "release is idempotent, also when the key is somebody else's by now",
    run: Effect.fnUntraced(function*({ a, attempt, b, expectFree, expectHeld, key, take }) {
      const k = key()
      const first = attempt(k)
      const second = attempt(k)
      yield* take(a, first, "a free key is granted")
      assert.isTrue(yield* a.release(first), "the release of a held key answers true")
      assert.isFalse(yield* a.release(first), "the second release answers false")
      yield* take(b, second, "a released key is granted")
      assert.isFalse(yield* a.release(first), "a release that comes again answers false")
      yield* expectHeld(k, "a release that comes again does not free the key of the next holder")
      assert.isTrue(Option.isSome(yield* b.renew(second)), "a release that comes again does not end the next lease")
      assert.isTrue(yield* b.release(second), "the release of a held key answers true")
      yield* expectFree(k, "a released key is free")
    })
  },
  {
    law: 4,
    name: "release of an owner that never asked does nothing to a free key",
    run: Effect.fnUntraced(function*({ a, attempt, b, expectFree, key }) {
      const k = key()
      for (const client of [a, b]) {
        assert.isFalse(yield* client.release(attempt(k)), "the release of an owner that never asked answers false")
      }
      yield* expectFree(k, "a free key stays free")
    })
  },
  {
    law: 4,
    name: "release leaves the line",
    run: Effect.fnUntraced(
      function*({ a, attempt, b, expectFree, key, lineUp, patience, take, within }) {
        for (const client of [a, b]) {
          const k = key()
          const holder = attempt(k)
          const waiter = attempt(k)
          yield* take(a, holder, "a free key is granted")
          const waiting = yield* lineUp(client, waiter)
          yield* within(Fiber.interrupt(waiting), patience, "an interrupted acquire returns at once")
          assert.isFalse(yield* client.release(waiter), "the release of an owner that was not granted answers false")
          assert.isTrue(yield* a.release(holder), "the release of a held key answers true")
          yield* expectFree(k, "who left the line does not get the key")
        }
      }
    )
  },
  {
    law: 4,
    name: "release ends an acquire that still waits, and it holds nothing",
    run: Effect.fnUntraced(function*({ a, attempt, b, expectFree, key, lineUp, settle, take }) {
      const k = key()
      const holder = attempt(k)
      const waiter = attempt(k)
      yield* take(a, holder, "a free key is granted")
      const waiting = yield* lineUp(b, waiter)
      assert.isFalse(yield* b.release(waiter), "the release of an owner that was not granted answers false")
      yield* a.release(holder)
      yield* settle
      yield* Fiber.interrupt(waiting)
      yield* b.release(waiter)
      yield* expectFree(k, "an attempt that was released while it waited holds nothing and is not in line")
    })
  },
  {
    law: 9,
    name: "a release is not a loss",
    run: Effect.fnUntraced(
      function*(
        { a, attempt, b, elapse, expectFree, granularity, key, lineUp, minTtl, patience, slack, take, within }
      ) {
        const k = key()
        const holder = attempt(k, minTtl)
        const waiter = attempt(k, minTtl)
        const tried = attempt(k)
        yield* take(a, holder, "a free key is granted")
        const waiting = yield* lineUp(b, waiter)
        assert.isTrue(Option.isNone(yield* a.tryAcquire(tried)), "a held key is refused")
        yield* a.release(holder)
        yield* within(Fiber.join(waiting), patience, "a release lets the next in line have the key")
        yield* b.release(waiter)
        yield* elapse(Duration.sum(minTtl, Duration.sum(granularity, slack)))
        for (const request of [holder, waiter, tried]) {
          assert.deepStrictEqual(request.losses, [], "who released, and who was refused, is not told of a loss")
        }
        yield* expectFree(k, "a released key is free")
      }
    )
  }
]
