import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"
import { expectUnsupported, isPending } from "../Kit.ts"

const revokes: Definition["needs"] = ["revokes", (capabilities) => capabilities.revokes === true]

export const revoke: ReadonlyArray<Definition> = [
  {
    law: "revoke",
    name: "the hold of exactly this owner ends, and its holder learns of it",
    needs: revokes,
    run: Effect.fnUntraced(
      function*(
        { a, b, capabilities, endLimit, expectFree, expectHeld, key, newRequest, patience, settle, take, until, within }
      ) {
        for (const [client, revoker] of [[a, b], [b, a], [a, a]] as const) {
          const k = key()
          const holder = newRequest(k, { spare: 7 })
          const { tokens } = yield* take(client, holder, "a free key is granted")
          assert.isTrue(yield* revoker.revoke(k, holder.owner), "the hold of its owner is revoked")
          if (capabilities.pushesLoss) {
            yield* within(Deferred.await(holder.lost), endLimit, "the holder is told that its hold ended")
          }
          const hasEnded = Effect.map(
            Effect.exit(client.renew(holder, { fresh: true })),
            (exit) => exit._tag === "Success" && Option.isNone(exit.value)
          )
          yield* until(hasEnded, endLimit, "a hold that was revoked is not renewed")
          assert.isTrue(holder.losses.every((reason) => reason === "taken"), "the reason of the loss is taken")
          const next = newRequest(k)
          const nextGrant = yield* within(client.acquire(next), patience, "a key that was revoked is free")
          assert.isTrue(
            nextGrant.tokens.first > tokens.first + BigInt(tokens.spare),
            "fencing tokens grow over a hold that was revoked"
          )
          assert.isFalse(yield* revoker.revoke(k, holder.owner), "the second revoke ends nothing")
          assert.notStrictEqual(yield* client.release(holder), "released", "a hold that was revoked is not released")
          yield* settle
          yield* expectHeld(k, "neither of them ends the next hold")
          assert.deepStrictEqual(next.losses, [], "the next holder is not told of a loss")
          yield* client.release(next)
          yield* expectFree(k, "a released key is free")
        }
      }
    )
  },
  {
    law: "revoke",
    name: "the next in line has the key",
    needs: revokes,
    run: Effect.fnUntraced(
      function*({ a, b, endLimit, expectFree, expectHeld, key, lineUp, newRequest, patience, take, within }) {
        const k = key()
        const [holder, next, last] = [newRequest(k), newRequest(k), newRequest(k)]
        yield* take(a, holder, "a free key is granted")
        const nextWaits = yield* lineUp(b, next)
        const lastWaits = yield* lineUp(a, last)
        assert.isTrue(yield* b.revoke(k, holder.owner), "the hold of its owner is revoked")
        const served = yield* within(
          Effect.raceFirst(Effect.as(Fiber.join(nextWaits), next), Effect.as(Fiber.join(lastWaits), last)),
          endLimit,
          "a revoke lets the next in line have the key"
        )
        yield* expectHeld(k, "a key that was handed over is refused to others")
        yield* (served === next ? b : a).release(served)
        const [behind, rest, client] = served === next ? [lastWaits, last, a] as const : [nextWaits, next, b] as const
        yield* within(Fiber.join(behind), patience, "the line goes on")
        yield* client.release(rest)
        yield* a.release(holder)
        yield* expectFree(k, "a key whose line is empty is free")
      }
    )
  },
  {
    law: "revoke",
    name: "another owner, a waiter and a free key are left alone",
    needs: revokes,
    run: Effect.fnUntraced(
      function*({ a, b, expectFree, key, lineUp, newRequest, patience, settle, take, within }) {
        const k = key()
        const holder = newRequest(k)
        const waiter = newRequest(k)
        assert.isFalse(yield* a.revoke(k, holder.owner), "a free key has no hold to revoke")
        yield* expectFree(k, "a free key stays free")
        yield* take(a, holder, "a free key is granted")
        const waiting = yield* lineUp(b, waiter)
        const others = [
          newRequest(k).owner,
          waiter.owner,
          `${holder.owner}x`,
          holder.owner.slice(0, -1),
          holder.owner.toUpperCase(),
          "*",
          ""
        ]
        for (const owner of others) {
          for (const client of [a, b]) {
            assert.isFalse(yield* client.revoke(k, owner), `${JSON.stringify(owner)} does not hold the key`)
          }
        }
        assert.isFalse(yield* b.revoke(key(), holder.owner), "the owner does not hold another key")
        yield* settle
        assert.isTrue(isPending(waiting), "the revoke of others lets no waiter in")
        assert.isTrue(
          Option.isSome(yield* a.renew(holder, { fresh: true })),
          "the revoke of others does not end a grant"
        )
        assert.deepStrictEqual([...holder.losses, ...waiter.losses], [], "the revoke of others is not a loss")
        assert.notStrictEqual(yield* a.release(holder), "gone", "the release of a held key is not gone")
        yield* within(Fiber.join(waiting), patience, "a waiter that was revoked keeps its place in line")
        yield* b.release(waiter)
        yield* expectFree(k, "a released key is free")
      }
    )
  },
  {
    law: "revoke",
    name: "a backend without revoke says so and ends nothing",
    needs: ["no revokes", (capabilities) => capabilities.revokes !== true],
    run: Effect.fnUntraced(function*({ a, b, expectFree, key, newRequest, take }) {
      const holder = newRequest(key())
      yield* take(a, holder, "a free key is granted")
      for (const client of [a, b]) {
        expectUnsupported(yield* Effect.exit(client.revoke(holder.key, holder.owner)), "revoke")
      }
      assert.isTrue(Option.isSome(yield* a.renew(holder, { fresh: true })), "the grant goes on")
      yield* a.release(holder)
      yield* expectFree(holder.key, "a released key is free")
    })
  }
]
