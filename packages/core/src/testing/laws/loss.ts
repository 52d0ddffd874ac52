import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"

export const loss: ReadonlyArray<Definition> = [
  {
    law: 9,
    name: "the holder is told when its lease is lost",
    needs: ["pushesLoss and revocable", ({ pushesLoss, revocable }) => pushesLoss && revocable !== undefined],
    run: Effect.fnUntraced(
      function*({ attempt, granularity, key, longTtl, minTtl, patience, revocable, take, within }) {
        const { client, revoke } = yield* revocable
        const limit = Duration.sum(Duration.sum(minTtl, granularity), patience)
        assert.isTrue(Duration.isLessThan(limit, longTtl), "minTtl is short enough to tell a push from an expiry")
        const kept = attempt(key())
        yield* take(client, kept, "a free key is granted")
        assert.isTrue(yield* client.release(kept), "the release of a held key answers true")
        const holder = attempt(key())
        yield* take(client, holder, "a free key is granted")
        yield* revoke(holder)
        yield* within(Deferred.await(holder.lost), limit, "a loss is told to the holder")
        assert.deepStrictEqual(kept.losses, [], "who released before is not told of a loss")
      }
    )
  },
  {
    law: 3,
    name: "a lease that was revoked is not renewed, and others can have the key",
    needs: ["revocable", ({ revocable }) => revocable !== undefined],
    run: Effect.fnUntraced(
      function*({ attempt, b, expectHeld, granularity, key, minTtl, patience, revocable, take, until, within }) {
        const { client, revoke } = yield* revocable
        const holder = attempt(key(), minTtl)
        yield* take(client, holder, "a free key is granted")
        yield* revoke(holder)
        // A session's renewal may be answered from its last refresh, and a broken connection with an error.
        const isLost = Effect.map(
          Effect.exit(client.renew(holder)),
          (exit) => exit._tag === "Success" && Option.isNone(exit.value)
        )
        const limit = Duration.sum(Duration.sum(minTtl, granularity), patience)
        yield* until(isLost, limit, "a lease that was revoked is no longer renewed")
        const next = attempt(holder.key)
        yield* within(b.acquire(next), limit, "the key of a revoked lease is free")
        assert.isFalse(yield* client.release(holder), "the release of a lease that was revoked answers false")
        yield* expectHeld(holder.key, "the release of a revoked lease does not free the key of the next holder")
        yield* b.release(next)
      }
    )
  }
]
