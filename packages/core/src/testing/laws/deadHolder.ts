import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"
import { endOf } from "../Kit.ts"

const freedByTtl: Definition["needs"] = ["freedBy ttl", ({ freedBy }) => freedBy === "ttl"]

export const deadHolder: ReadonlyArray<Definition> = [
  {
    law: 8,
    name: "a grant that is not renewed ends at its ttl, not before, and the next in line has the key",
    needs: freedByTtl,
    run: Effect.fnUntraced(
      function*(
        { a, b, expectFree, granularity, key, lineUp, minTtl, newRequest, now, patience, slack, take, within }
      ) {
        const k = key()
        const next = newRequest(k)
        const grant = yield* take(a, newRequest(k, { ttl: minTtl }), "a free key is granted")
        const answered = yield* now
        const waiting = yield* lineUp(b, next)
        const served = yield* Effect.forkScoped(Effect.andThen(Fiber.join(waiting), now), { startImmediately: true })
        const late = granularity + slack
        const at = yield* within(Fiber.join(served), grant.ttl + late + patience, "the key of a dead holder is free")
        assert.isTrue(at >= endOf(grant), "a grant does not end before the end that its holder was told")
        const latest = answered + grant.ttl + late
        assert.isTrue(at <= latest, "the key of a dead holder is free within its ttl and the granularity")
        yield* b.release(next)
        yield* expectFree(k, "a released key is free")
      }
    )
  },
  {
    law: 8,
    name: "a grant that is not renewed ends at its ttl with an empty line",
    needs: freedByTtl,
    run: Effect.fnUntraced(
      function*({ a, elapse, expectFree, expectHeld, granularity, key, margin, newRequest, renewing, take }) {
        const { k, ttl } = yield* renewing(Effect.fnUntraced(function*(believe, ttl) {
          const k = key()
          believe(endOf(yield* take(a, newRequest(k, { ttl }), "a free key is granted")))
          yield* expectHeld(k, "a held key is refused")
          return { k, ttl }
        }))
        yield* elapse(ttl + granularity + margin)
        yield* expectFree(k, "the key of a dead holder is free within its ttl and the granularity")
      }
    )
  },
  {
    law: 8,
    name: "the key of a client that died is free within the ttl of its last renewal",
    needs: ["mortal", ({ mortal }) => mortal !== undefined],
    run: Effect.fnUntraced(
      function*(
        {
          b,
          elapse,
          expectFree,
          granularity,
          key,
          lineUp,
          mortal,
          newRequest,
          now,
          patience,
          renewing,
          slack,
          take,
          within
        }
      ) {
        const { cut, grant, next, waiting } = yield* renewing(Effect.fnUntraced(function*(believe, ttl) {
          const holder = newRequest(key(), { ttl })
          const next = newRequest(holder.key)
          const { client, cut } = yield* mortal
          const grant = yield* take(client, holder, "a free key is granted")
          believe(endOf(grant))
          const waiting = yield* lineUp(b, next)
          yield* elapse(ttl / 3)
          const renewed = yield* client.renew(holder, { fresh: true })
          assert.isTrue(Option.isSome(renewed), "a grant that is renewed in time goes on")
          return { cut, grant, next, waiting }
        }))
        yield* cut
        const last = yield* now
        const late = granularity + slack
        yield* within(Fiber.join(waiting), grant.ttl + late + patience, "the key of a client that died is free")
        assert.isTrue((yield* now) <= last + grant.ttl + late, "it is free within its ttl and the granularity")
        assert.notStrictEqual(yield* b.release(next), "gone", "the release of a key that was waited for is not gone")
        yield* expectFree(next.key, "a released key is free")
      }
    )
  }
]
