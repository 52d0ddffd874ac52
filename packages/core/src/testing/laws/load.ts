import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type { Grant } from "../../LockBackend.ts"
import type { Definition } from "../Case.ts"
import type { Client, Kit } from "../Kit.ts"
import * as TokenLedger from "../TokenLedger.ts"

const limit = 120_000

/** A resource without protection of its own. */
const makeResource = ({ pause }: Kit) => {
  let count = 0
  let inside = 0
  const ledger = TokenLedger.make()
  return {
    count: () => count,
    use: ({ tokens }: Grant, spare: number) =>
      Effect.gen(function*() {
        assert.strictEqual(++inside, 1, "two owners never hold a key at the same time")
        ledger.add(tokens, spare)
        const read = count
        yield* Effect.flatMap(Random.nextIntBetween(0, 8), pause)
        count = read + 1
        inside--
      })
  }
}

export const load: ReadonlyArray<Definition> = [
  {
    law: 1,
    name: "many contenders over both clients count an unprotected counter exactly",
    heavy: true,
    run: Effect.fnUntraced(function*(kit) {
      const { a, newRequest, b, capabilities, expectFree, key, within } = kit
      const k = key()
      const contenders = capabilities.contenders ?? 100
      const resource = makeResource(kit)
      const contend = (i: number) => {
        const client = i % 2 === 0 ? a : b
        const request = newRequest(k, { spare: i % 4 })
        return Effect.gen(function*() {
          yield* resource.use(yield* client.acquire(request), request.spare)
          assert.notStrictEqual(yield* client.release(request), "gone", "the release of a held key is not gone")
        })
      }
      const all = Effect.forEach(Array.from({ length: contenders }, (_, i) => i), contend, {
        concurrency: "unbounded",
        discard: true
      })
      yield* within(all, limit, "every contender is served")
      assert.strictEqual(resource.count(), contenders, "no increment under the lock is lost")
      yield* expectFree(k, "a key whose line is empty is free")
    })
  },
  {
    law: 5,
    name: "exclusion and the line survive a storm of waits, tries and interruptions",
    heavy: true,
    run: Effect.fnUntraced(function*(kit) {
      const { a, newRequest, b, capabilities, expectFree, key, pause, within } = kit
      const places = Array.from({ length: 3 }, () => ({ key: key(), resource: makeResource(kit) }))
      const contend = Effect.fnUntraced(function*(client: Client) {
        for (const { key, resource } of yield* Random.shuffle(places)) {
          const request = newRequest(key, { spare: 2 })
          const way = yield* Random.nextIntBetween(0, 3)
          if (way === 0) {
            const fiber = yield* Effect.forkChild(client.acquire(request), { startImmediately: true })
            yield* pause(yield* Random.nextIntBetween(0, 8))
            yield* Fiber.interrupt(fiber)
          } else {
            const grant = yield* way === 1 ? Effect.asSome(client.acquire(request)) : client.tryAcquire(request)
            if (Option.isSome(grant)) yield* resource.use(grant.value, request.spare)
          }
          yield* client.release(request)
        }
      })
      const clients = Array.from({ length: capabilities.contenders ?? 100 }, (_, i) => i % 2 === 0 ? a : b)
      const all = Effect.forEach(clients, contend, { concurrency: "unbounded", discard: true })
      yield* within(all, limit, "every contender comes to an end")
      for (const place of places) yield* expectFree(place.key, "nothing is left held or queued after the storm")
    })
  },
  {
    law: 1,
    name: "one client holds 500 keys at once",
    heavy: true,
    run: Effect.fnUntraced(function*({ a, newRequest, b, expectFree, key, take, within }) {
      const requests = Array.from({ length: 500 }, () => newRequest(key()))
      const each = <A, E>(verb: (request: typeof requests[number]) => Effect.Effect<A, E>) =>
        Effect.forEach(requests, verb, { concurrency: 50 })
      const all = Effect.gen(function*() {
        yield* each((request) => take(a, request, "a free key is granted"))
        const refused = yield* each((request) => b.tryAcquire(newRequest(request.key)))
        assert.isTrue(refused.every(Option.isNone), "each of the keys is held")
        const renewed = yield* each((request) => a.renew(request, { fresh: true }))
        assert.isTrue(renewed.every(Option.isSome), "each of the grants is renewed")
        const released = yield* each(a.release)
        assert.isTrue(!released.includes("gone"), "each of the keys is released")
      })
      yield* within(all, limit, "500 keys are held at once")
      for (const { key } of requests.slice(0, 5)) yield* expectFree(key, "a released key is free")
    })
  }
]
