import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type { Definition } from "../Case.ts"
import type { Client, Kit } from "../Kit.ts"

const limit = Duration.minutes(1)

/** A resource without protection of its own. */
const makeResource = ({ pause }: Kit) => {
  let count = 0
  let inside = 0
  let lastToken = -1n
  return {
    count: () => count,
    use: (fencingToken: bigint) =>
      Effect.gen(function*() {
        assert.strictEqual(++inside, 1, "two owners never hold a key at the same time")
        assert.isTrue(fencingToken > lastToken, "the fencing token grows with every grant of the key")
        lastToken = fencingToken
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
      const { a, attempt, b, capabilities, expectFree, key, within } = kit
      const k = key()
      const contenders = capabilities.contenders ?? 100
      const resource = makeResource(kit)
      const contend = (i: number) => {
        const client = i % 2 === 0 ? a : b
        const request = attempt(k)
        return Effect.gen(function*() {
          const grant = yield* client.acquire(request)
          yield* resource.use(grant.fencingToken)
          assert.isTrue(yield* client.release(request), "the release of a held key answers true")
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
      const { a, attempt, b, capabilities, expectFree, key, pause, within } = kit
      const places = Array.from({ length: 3 }, () => ({ key: key(), resource: makeResource(kit) }))
      const contend = Effect.fnUntraced(function*(client: Client) {
        for (const { key, resource } of yield* Random.shuffle(places)) {
          const request = attempt(key)
          const way = yield* Random.nextIntBetween(0, 3)
          if (way === 0) {
            const fiber = yield* Effect.forkChild(client.acquire(request), { startImmediately: true })
            yield* pause(yield* Random.nextIntBetween(0, 8))
            yield* Fiber.interrupt(fiber)
          } else {
            const grant = yield* way === 1 ? Effect.asSome(client.acquire(request)) : client.tryAcquire(request)
            if (Option.isSome(grant)) yield* resource.use(grant.value.fencingToken)
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
    run: Effect.fnUntraced(function*({ a, attempt, b, expectFree, key, take, within }) {
      const requests = Array.from({ length: 500 }, () => attempt(key()))
      const each = <A, E>(verb: (request: typeof requests[number]) => Effect.Effect<A, E>) =>
        Effect.forEach(requests, verb, { concurrency: 50 })
      const all = Effect.gen(function*() {
        yield* each((request) => take(a, request, "a free key is granted"))
        const refused = yield* each((request) => b.tryAcquire(attempt(request.key)))
        assert.isTrue(refused.every(Option.isNone), "each of the keys is held")
        const renewed = yield* each(a.renew)
        assert.isTrue(renewed.every(Option.isSome), "each of the leases is renewed")
        const released = yield* each(a.release)
        assert.isTrue(released.every((answer) => answer), "each of the keys is released")
      })
      yield* within(all, limit, "500 keys are held at once")
      for (const { key } of requests.slice(0, 5)) yield* expectFree(key, "a released key is free")
    })
  }
]
