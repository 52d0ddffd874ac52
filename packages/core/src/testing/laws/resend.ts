import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Definition } from "../Case.ts"

export const resend: ReadonlyArray<Definition> = [
  {
    law: 2,
    name: "an owner that asks again gets its own grant back",
    run: Effect.fnUntraced(function*({ a, attempt, b, expectFree, expectHeld, key, patience, take, within }) {
      for (const client of [a, b]) {
        const k = key()
        const request = attempt(k)
        const first = yield* take(client, request, "a free key is granted")
        const second = yield* take(client, request, "the holder that tries again is not refused")
        const third = yield* within(
          client.acquire(request),
          patience,
          "the holder that acquires again does not wait for itself"
        )
        assert.strictEqual(second.fencingToken, first.fencingToken, "asking again gives the same fencing token")
        assert.strictEqual(third.fencingToken, first.fencingToken, "acquiring again gives the same fencing token")
        yield* expectHeld(k, "asking again lets nobody else in")
        assert.isTrue(yield* client.release(request), "the release of a held key answers true")
        yield* expectFree(k, "one release is enough however often the owner asked")
      }
    })
  },
  {
    law: 2,
    name: "the same acquire sent twice at once is granted once",
    run: Effect.fnUntraced(function*({ a, attempt, expectFree, key, patience, within }) {
      const k = key()
      const request = attempt(k)
      const [first, second] = yield* within(
        Effect.all([a.acquire(request), a.acquire(request)], { concurrency: 2 }),
        patience,
        "an acquire that is sent twice is answered twice"
      )
      assert.strictEqual(second.fencingToken, first.fencingToken, "both answers carry the same fencing token")
      assert.isTrue(yield* a.release(request), "the release of a held key answers true")
      yield* expectFree(k, "one release is enough for an acquire that was sent twice")
    })
  },
  {
    law: 2,
    name: "an owner that asks again while it waits has one place in line",
    run: Effect.fnUntraced(
      function*({ a, attempt, b, expectFree, key, lineUp, patience, settle, take, within }) {
        const k = key()
        const holder = attempt(k)
        const waiter = attempt(k)
        const next = attempt(k)
        yield* take(a, holder, "a free key is granted")
        const first = yield* lineUp(b, waiter)
        const second = yield* Effect.forkScoped(b.acquire(waiter), { startImmediately: true })
        yield* settle
        const third = yield* lineUp(a, next)
        const served = yield* Effect.forkScoped(Effect.andThen(Fiber.join(third), a.release(next)), {
          startImmediately: true
        })
        yield* a.release(holder)
        const one = yield* within(Fiber.join(first), patience, "a release lets the next in line have the key")
        const two = yield* within(Fiber.join(second), patience, "an acquire that was sent again is answered as well")
        assert.strictEqual(two.fencingToken, one.fencingToken, "both answers carry the same fencing token")
        assert.isTrue(yield* b.release(waiter), "the release of a key that was waited for answers true")
        yield* within(Fiber.join(served), patience, "one release takes the whole attempt out of the line")
        yield* expectFree(k, "nothing is left of an attempt that asked twice")
      }
    )
  }
]
