import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"

const assertGrowing = (tokens: ReadonlyArray<bigint>): void => {
  for (const [i, token] of tokens.entries()) {
    assert.typeOf(token, "bigint", "a fencing token is a bigint")
    const previous = tokens[i - 1]
    if (previous !== undefined) {
      assert.isTrue(token > previous, `the fencing token grows with every grant of the key (${tokens.join(", ")})`)
    }
  }
}

export const fencing: ReadonlyArray<Definition> = [
  {
    law: 7,
    name: "fencing tokens grow over owners, clients and ways of getting the key",
    run: Effect.fnUntraced(function*({ a, attempt, b, key, lineUp, patience, take, within }) {
      const k = key()
      const tokens: Array<bigint> = []
      for (const client of [a, b, b, a, a]) {
        const tried = attempt(k)
        tokens.push((yield* take(client, tried, "a free key is granted")).fencingToken)
        yield* client.release(tried)
        const acquired = attempt(k)
        const grant = yield* within(client.acquire(acquired), patience, "acquire of a free key is granted")
        tokens.push(grant.fencingToken)
        const waiter = attempt(k)
        const other = client === a ? b : a
        const waiting = yield* lineUp(other, waiter)
        yield* client.release(acquired)
        const handedOver = yield* within(Fiber.join(waiting), patience, "a release lets the next in line have the key")
        const renewed = yield* other.renew(waiter)
        assert.isTrue(Option.isSome(renewed), "a lease that did not end is renewed")
        const confirmed = Option.isSome(renewed) ? renewed.value.fencingToken : undefined
        if (confirmed !== undefined) {
          assert.isTrue(confirmed >= handedOver.fencingToken, "renew does not tell an older fencing token")
        }
        tokens.push(confirmed ?? handedOver.fencingToken)
        yield* other.release(waiter)
      }
      assertGrowing(tokens)
    })
  },
  {
    law: 7,
    name: "a renewal does not change the fencing token",
    run: Effect.fnUntraced(function*({ a, attempt, key, take }) {
      const k = key()
      const holder = attempt(k)
      const { fencingToken } = yield* take(a, holder, "a free key is granted")
      for (const _ of [1, 2]) {
        const renewed = yield* a.renew(holder)
        assert.isTrue(Option.isSome(renewed), "a lease that did not end is renewed")
        const told = Option.isSome(renewed) ? renewed.value.fencingToken : undefined
        assert.strictEqual(told ?? fencingToken, fencingToken, "a renewal does not change the fencing token")
      }
      yield* a.release(holder)
    })
  },
  {
    law: 7,
    name: "fencing tokens grow over leases that ended by themselves",
    needs: ["tenure lease", ({ tenure }) => tenure === "lease"],
    run: Effect.fnUntraced(function*({ a, attempt, b, granularity, key, minTtl, patience, take, within }) {
      const k = key()
      const first = yield* take(a, attempt(k, minTtl), "a free key is granted")
      const limit = Duration.sum(Duration.sum(minTtl, granularity), patience)
      const next = attempt(k)
      const second = yield* within(b.acquire(next), limit, "the next in line has the key when the lease ends")
      yield* b.release(next)
      const last = attempt(k)
      const third = yield* take(a, last, "a released key is granted")
      yield* a.release(last)
      assertGrowing([first.fencingToken, second.fencingToken, third.fencingToken])
    })
  }
]
