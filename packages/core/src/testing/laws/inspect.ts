import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Inspection } from "../../LockBackend.ts"
import type { Inspects } from "../Capabilities.ts"
import type { Definition } from "../Case.ts"
import { expectUnsupported, isPending } from "../Kit.ts"

const inspects: Definition["needs"] = ["inspects", (capabilities) => capabilities.inspects !== undefined]

const nothing: Inspects = { owner: false, token: false, remaining: false, waiting: "none" }

const isFree = ({ holder, waiting }: Inspection): boolean =>
  Option.isNone(holder) && (waiting === 0 || (typeof waiting !== "number" && waiting.length === 0))

/** The line, as the backend tells it, is exactly these owners. */
const tellsWaiting = (
  told: Inspection["waiting"],
  owners: ReadonlyArray<string>,
  how: Inspects["waiting"],
  fifo: boolean
) => {
  if (how === "none") return typeof told !== "number" && told.length === 0
  if (how === "number") return told === owners.length
  if (typeof told === "number") return false
  const inOrder = (list: ReadonlyArray<string>) => fifo ? list : list.toSorted()
  return JSON.stringify(inOrder(told)) === JSON.stringify(inOrder(owners))
}

export const inspect: ReadonlyArray<Definition> = [
  {
    law: "inspect",
    name: "a key that is not held is free",
    needs: inspects,
    run: Effect.fnUntraced(function*({ a, b, key, newRequest, patience, take, until }) {
      const k = key()
      for (const client of [a, b]) assert.isTrue(isFree(yield* client.inspect(k)), "a key that was never held is free")
      const holder = newRequest(k)
      yield* take(a, holder, "a free key is granted")
      for (const client of [a, b]) {
        assert.isTrue(Option.isSome((yield* client.inspect(k)).holder), "a held key has a holder")
        assert.isTrue(isFree(yield* client.inspect(key())), "a key is free while another one is held")
      }
      yield* a.release(holder)
      for (const client of [a, b]) {
        yield* until(Effect.map(client.inspect(k), isFree), patience, "a released key is free")
      }
    })
  },
  {
    law: "inspect",
    name: "a key whose grant ended by itself is free",
    needs: ["inspects and freedBy ttl", ({ freedBy, inspects }) => inspects !== undefined && freedBy === "ttl"],
    run: Effect.fnUntraced(function*({ a, b, elapse, granularity, key, margin, minTtl, newRequest, take }) {
      const k = key()
      yield* take(a, newRequest(k, { ttl: minTtl }), "a free key is granted")
      yield* elapse(minTtl + granularity + margin)
      for (const client of [a, b]) assert.isTrue(isFree(yield* client.inspect(k)), "a key whose grant ended is free")
    })
  },
  {
    law: "inspect",
    name:
      "a holder is told by its owner, its greatest token and the time that is left, and what is not known is absent",
    needs: inspects,
    run: Effect.fnUntraced(
      function*({ a, b, capabilities, elapse, granularity, key, margin, minTtl, newRequest, slack, take }) {
        const { owner, remaining, token } = capabilities.inspects ?? nothing
        const k = key()
        const holder = newRequest(k, { spare: 7 })
        const grant = yield* take(a, holder, "a free key is granted")
        const renewed = yield* a.renew(holder, { spare: 3 })
        const tokens = Option.isSome(renewed) && renewed.value.tokens ? renewed.value.tokens : grant.tokens
        const inspectHolder = Effect.fnUntraced(function*(client: typeof a) {
          const told = yield* client.inspect(k)
          return Option.getOrElse(told.holder, () => assert.fail("a held key has a holder"))
        })
        for (const client of [a, b]) {
          const told = yield* inspectHolder(client)
          assert.strictEqual(told.owner, owner ? holder.owner : undefined, "the owner is told, if it is known")
          const greatest = tokens.first + BigInt(tokens.spare)
          assert.strictEqual(told.token, token ? greatest : undefined, "the greatest token is told, if it is known")
          if (!remaining) {
            assert.isUndefined(told.remaining, "a time that is not known is absent")
            continue
          }
          const before = told.remaining ?? assert.fail("the time that is left is told")
          const most = (capabilities.ttl === "request" ? holder.ttl * 2 : Infinity) + granularity
          assert.isTrue(before > 0 && before <= most, `the time that is left is that of the grant, not ${before} ms`)
          yield* elapse(minTtl / 4)
          const after = (yield* inspectHolder(client)).remaining ?? assert.fail("the time that is left is told")
          // A session is kept alive by the backend itself.
          if (capabilities.freedBy === "ttl") {
            const passed = before - after
            assert.isTrue(
              passed >= minTtl / 4 - margin / 5 && passed <= minTtl / 4 + slack,
              `the time that is left passes with the time: ${passed} ms in ${minTtl / 4} ms`
            )
          }
        }
        yield* a.release(holder)
      }
    )
  },
  {
    law: "inspect",
    name: "the waiters are told in the order of the line",
    needs: inspects,
    run: Effect.fnUntraced(
      function*({ a, b, capabilities, expectFree, key, lineUp, newRequest, patience, take, until, within }) {
        const { fifo, inspects } = capabilities
        const how = (inspects ?? nothing).waiting
        const k = key()
        const holder = newRequest(k)
        yield* take(a, holder, "a free key is granted")
        const stand = Effect.fnUntraced(function*(client: typeof a) {
          const request = newRequest(k)
          return { client, request, waiting: yield* lineUp(client, request) }
        })
        const first = yield* stand(b)
        const second = yield* stand(a)
        const third = yield* stand(b)
        const fourth = yield* stand(b)
        const expectWaiting = (these: ReadonlyArray<typeof first>, property: string) =>
          Effect.forEach([a, b], (client) =>
            until(
              Effect.map(client.inspect(k), ({ waiting }) =>
                tellsWaiting(waiting, these.map(({ request }) => request.owner), how, fifo)),
              patience,
              property
            ), { discard: true })
        yield* expectWaiting([first, second, third, fourth], "all that wait are told")
        yield* Fiber.interrupt(second.waiting)
        yield* second.client.release(second.request)
        yield* expectWaiting([first, third, fourth], "a waiter that left the line is not told any more")
        if (fifo) {
          yield* a.release(holder)
          yield* within(Fiber.join(first.waiting), patience, "a release lets the next in line have the key")
          yield* expectWaiting([third, fourth], "a waiter that was granted the key does not wait any more")
          const told = Option.getOrUndefined((yield* a.inspect(k)).holder)
          if (inspects?.owner) assert.strictEqual(told?.owner, first.request.owner, "it is the holder now")
        }
        for (const { client, request, waiting } of [fourth, third, first]) {
          yield* Fiber.interrupt(waiting)
          yield* client.release(request)
        }
        yield* a.release(holder)
        yield* expectFree(k, "a key whose line is empty is free")
      }
    )
  },
  {
    law: "inspect",
    name: "it changes nothing",
    needs: inspects,
    run: Effect.fnUntraced(
      function*(
        { a, b, elapse, expectFree, granularity, key, lineUp, margin, minTtl, newRequest, patience, take, within }
      ) {
        const inspectBoth = (k: string) =>
          Effect.forEach([a, b, a, b], (client) => client.inspect(k), { concurrency: 2 })
        const free = key()
        yield* inspectBoth(free)
        yield* expectFree(free, "inspect does not take a free key")
        const k = key()
        const holder = newRequest(k)
        const waiter = newRequest(k)
        yield* take(a, holder, "a free key is granted")
        yield* inspectBoth(k)
        const waiting = yield* lineUp(b, waiter)
        yield* inspectBoth(k)
        assert.isTrue(isPending(waiting), "inspect lets no waiter in")
        assert.isTrue(Option.isSome(yield* a.renew(holder, { fresh: true })), "inspect ends no grant")
        assert.deepStrictEqual(holder.losses, [], "inspect is not a loss")
        yield* a.release(holder)
        yield* within(Fiber.join(waiting), patience, "inspect costs no place in line")
        yield* b.release(waiter)
        if (a.freedBy === "session") return
        const brief = key()
        yield* take(a, newRequest(brief, { ttl: minTtl }), "a free key is granted")
        for (const _ of [1, 2, 3, 4]) {
          yield* elapse((minTtl + granularity + margin) / 4)
          yield* inspectBoth(brief)
        }
        yield* expectFree(brief, "inspect does not keep a grant alive")
      }
    )
  },
  {
    law: "inspect",
    name: "a backend without inspect says so",
    needs: ["no inspects", (capabilities) => capabilities.inspects === undefined],
    run: Effect.fnUntraced(function*({ a, expectFree, key, newRequest, take }) {
      const holder = newRequest(key())
      yield* take(a, holder, "a free key is granted")
      expectUnsupported(yield* Effect.exit(a.inspect(holder.key)), "inspect")
      yield* a.release(holder)
      yield* expectFree(holder.key, "a released key is free")
    })
  }
]
