import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"

export const resend: ReadonlyArray<Definition> = [
  {
    law: 2,
    name: "a request that arrives again gets its own grant",
    needs: ["resends", ({ resends }) => resends === true],
    run: Effect.fnUntraced(function*({ a, b, expectFree, expectHeld, key, newRequest, patience, take, within }) {
      for (const client of [a, b]) {
        const k = key()
        const request = newRequest(k, { spare: 3 })
        const first = yield* take(client, request, "a free key is granted")
        const second = yield* take(client, { ...request }, "a tryAcquire that arrives again is not refused")
        const third = yield* within(
          client.acquire({ ...request }),
          patience,
          "an acquire that arrives again does not wait for itself"
        )
        for (const { tokens } of [second, third]) {
          assert.isTrue(tokens.first >= first.tokens.first, "the token of a request that arrives again does not shrink")
        }
        yield* expectHeld(k, "a request that arrives again lets no other owner in")
        assert.isTrue(
          Option.isSome(yield* client.renew(request, { fresh: true })),
          "a grant that did not end is renewed"
        )
        assert.notStrictEqual(yield* client.release(request), "gone", "the release of a held key is not gone")
        const next = newRequest(k)
        const { tokens } = yield* take(client, next, "one release is enough for a request that arrived more than once")
        for (const earlier of [first.tokens, second.tokens, third.tokens]) {
          assert.isTrue(tokens.first > earlier.first + BigInt(earlier.spare), "the next grant has a greater token")
        }
        yield* client.release(next)
        yield* expectFree(k, "a released key is free")
      }
    })
  },
  {
    law: 2,
    name: "an earlier copy of a granted request changes nothing when it arrives",
    needs: ["late", ({ late }) => late !== undefined],
    run: Effect.fnUntraced(
      function*({ a, endLimit, expectHeld, key, late, newRequest, persist, settle, take, verbLimit, within }) {
        const { breakOff, client, deliver, holdBack } = yield* late
        const warm = newRequest(key())
        yield* take(client, warm, "a free key is granted")
        yield* persist(client.release(warm))
        const k = key()
        const request = newRequest(k)
        yield* holdBack
        const asking = yield* Effect.forkScoped(client.tryAcquire(request), { startImmediately: true })
        yield* settle
        yield* breakOff
        // A driver that resends is granted the key here.
        const exit = yield* within(
          Fiber.await(asking),
          verbLimit,
          "a tryAcquire whose connection breaks comes to an end"
        )
        const isGranted = Exit.isSuccess(exit) && Option.isSome(exit.value)
        if (isGranted) {
          yield* deliver
          yield* settle
          assert.isTrue(Option.isSome(yield* persist(client.renew(request, { fresh: true }))), "the grant goes on")
          yield* expectHeld(k, "the key stays held by its owner")
          assert.notStrictEqual(
            yield* persist(client.release(request)),
            "gone",
            "the release of a held key is not gone"
          )
        } else {
          const released = yield* persist(client.release(request))
          // A failure tells nothing: the copy may have been granted after the time limit.
          if (Exit.isSuccess(exit)) assert.notStrictEqual(released, "released", "a refused request held nothing")
          yield* deliver
          yield* settle
        }
        const next = newRequest(k)
        yield* within(a.acquire(next), endLimit, "a released key is free")
        yield* a.release(next)
      }
    )
  }
]
