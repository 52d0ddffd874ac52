import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Tokens, Validity } from "../../LockBackend.ts"
import type { Definition } from "../Case.ts"
import * as TokenLedger from "../TokenLedger.ts"

const expectRenewed = (renewed: Option.Option<Validity>): Validity =>
  Option.getOrElse(renewed, () => assert.fail("a grant that did not end is renewed"))

/** A renewal that does not ask for tokens may tell those that the grant has, and no others. */
const expectSame = (validity: Validity, { first, spare }: Tokens): void => {
  const told = validity.tokens ?? { first, spare }
  assert.strictEqual(told.first, first, "a renewal that does not ask for tokens does not change them")
  assert.strictEqual(told.spare, spare, "a renewal that does not ask for tokens reserves none")
}

export const tokens: ReadonlyArray<Definition> = [
  {
    law: 7,
    name: "fencing tokens grow over owners, clients and ways of getting the key",
    run: Effect.fnUntraced(function*({ a, b, key, lineUp, newRequest, patience, take, within }) {
      const k = key()
      const ledger = TokenLedger.make()
      for (const client of [a, b, b, a, a]) {
        const tried = newRequest(k)
        ledger.add((yield* take(client, tried, "a free key is granted")).tokens, 0)
        yield* client.release(tried)
        const acquired = newRequest(k)
        const grant = yield* within(client.acquire(acquired), patience, "acquire of a free key is granted")
        ledger.add(grant.tokens, 0)
        const waiter = newRequest(k)
        const other = client === a ? b : a
        const waiting = yield* lineUp(other, waiter)
        yield* client.release(acquired)
        const handedOver = yield* within(Fiber.join(waiting), patience, "a release lets the next in line have the key")
        ledger.add(handedOver.tokens, 0)
        yield* other.release(waiter)
      }
    })
  },
  {
    law: 7,
    name: "tokens that a grant reserves lie below those of every later grant",
    run: Effect.fnUntraced(function*({ a, b, key, lineUp, newRequest, patience, take, within }) {
      const k = key()
      const ledger = TokenLedger.make()
      for (const [one, other] of [[a, b], [b, a], [b, b], [a, b]] as const) {
        const tried = newRequest(k, { spare: 63 })
        ledger.add((yield* take(one, tried, "a free key is granted")).tokens, 63)
        const first = newRequest(k, { spare: 3 })
        const second = newRequest(k)
        const firstWaits = yield* lineUp(other, first)
        const secondWaits = yield* lineUp(one, second)
        yield* one.release(tried)
        const served = Effect.andThen(
          Effect.map(Fiber.join(firstWaits), (grant) => ledger.add(grant.tokens, 3)),
          other.release(first)
        )
        const servedToo = Effect.andThen(
          Effect.map(Fiber.join(secondWaits), (grant) => ledger.add(grant.tokens, 0)),
          one.release(second)
        )
        // Which one is first depends on the backend; each is recorded when it is granted.
        yield* within(
          Effect.all([served, servedToo], { concurrency: 2, discard: true }),
          patience,
          "a release lets the next in line have the key"
        )
      }
    })
  },
  {
    law: 7,
    name: "the first grant of a key carries spare tokens",
    needs: ["reserves", ({ reserves }) => reserves === true],
    run: Effect.fnUntraced(function*({ a, b, key, newRequest, take }) {
      for (const client of [a, b]) {
        const holder = newRequest(key(), { spare: 15 })
        const { tokens } = yield* take(client, holder, "a free key is granted")
        TokenLedger.make().add(tokens, 15)
        assert.isTrue(tokens.spare > 0, "a grant that asks for spare tokens carries some")
        yield* client.release(holder)
      }
    })
  },
  {
    law: 7,
    name: "a renewal that does not ask for tokens leaves them as they are",
    run: Effect.fnUntraced(function*({ a, b, key, newRequest, take }) {
      for (const [client, fresh] of [[a, true], [b, false]] as const) {
        const holder = newRequest(key(), { spare: 3 })
        const { tokens } = yield* take(client, holder, "a free key is granted")
        for (const _ of [1, 2]) expectSame(expectRenewed(yield* client.renew(holder, { fresh })), tokens)
        yield* client.release(holder)
      }
    })
  },
  {
    law: 7,
    name: "tokens of a renewal are greater than those of the grant and lie below those of every later grant",
    run: Effect.fnUntraced(
      function*({ a, b, capabilities, key, lineUp, newRequest, patience, take, within }) {
        const k = key()
        const ledger = TokenLedger.make()
        for (const [one, other] of [[a, b], [b, a]] as const) {
          const holder = newRequest(k, { spare: 3 })
          const grant = yield* take(one, holder, "a free key is granted")
          ledger.add(grant.tokens, 3)
          let current = grant.tokens
          const renewFor = Effect.fnUntraced(function*(spare: number) {
            const { tokens } = expectRenewed(yield* one.renew(holder, { spare }))
            if (tokens === undefined) return
            ledger.add(tokens, spare)
            current = tokens
          })
          yield* renewFor(7)
          if (capabilities.renewsTokens === true) {
            assert.notStrictEqual(current.first, grant.tokens.first, "a renewal that asks for tokens gets some")
          }
          yield* renewFor(0)
          const waiter = newRequest(k, { spare: 3 })
          const waiting = yield* lineUp(other, waiter)
          yield* renewFor(63)
          expectSame(expectRenewed(yield* one.renew(holder, { fresh: true })), current)
          yield* one.release(holder)
          const handedOver = yield* within(
            Fiber.join(waiting),
            patience,
            "a release lets the next in line have the key"
          )
          ledger.add(handedOver.tokens, 3)
          yield* other.release(waiter)
        }
      }
    )
  },
  {
    law: 7,
    name: "fencing tokens grow over grants that ended by themselves",
    needs: ["freedBy ttl", ({ freedBy }) => freedBy === "ttl"],
    run: Effect.fnUntraced(function*({ a, b, endLimit, key, minTtl, newRequest, take, within }) {
      const k = key()
      const ledger = TokenLedger.make()
      const holder = newRequest(k, { ttl: minTtl, spare: 15 })
      ledger.add((yield* take(a, holder, "a free key is granted")).tokens, 15)
      const { tokens } = expectRenewed(yield* a.renew(holder, { spare: 7 }))
      if (tokens !== undefined) ledger.add(tokens, 7)
      const next = newRequest(k)
      const second = yield* within(b.acquire(next), endLimit, "the next in line has the key when the grant ends")
      ledger.add(second.tokens, 0)
      yield* b.release(next)
      const last = newRequest(k)
      ledger.add((yield* take(a, last, "a released key is granted")).tokens, 0)
      yield* a.release(last)
    })
  }
]
