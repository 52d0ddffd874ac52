import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Definition } from "../Case.ts"
import { endOf } from "../Kit.ts"

const mortal: Definition["needs"] = ["mortal", (capabilities) => capabilities.mortal !== undefined]

export const crash: ReadonlyArray<Definition> = [
  {
    law: 8,
    name: "a lease that nobody renews ends at its ttl, not before, and the next in line has the key",
    needs: ["tenure lease", ({ tenure }) => tenure === "lease"],
    run: Effect.fnUntraced(
      function*({ a, attempt, b, expectFree, granularity, key, lineUp, minTtl, now, patience, slack, take, within }) {
        const k = key()
        const next = attempt(k)
        const grant = yield* take(a, attempt(k, minTtl), "a free key is granted")
        const answered = yield* now
        const waiting = yield* lineUp(b, next)
        const served = yield* Effect.forkScoped(Effect.andThen(Fiber.join(waiting), now), { startImmediately: true })
        const late = Duration.sum(granularity, slack)
        const limit = Duration.sum(grant.ttl, Duration.sum(late, patience))
        const at = yield* within(Fiber.join(served), limit, "the key of a dead holder becomes free")
        assert.isTrue(at >= endOf(grant), "a lease does not end before the end that its holder was told")
        const latest = endOf({ validFrom: answered, ttl: Duration.sum(grant.ttl, late) })
        assert.isTrue(at <= latest, "the key of a dead holder is free within its ttl and the granularity")
        yield* b.release(next)
        yield* expectFree(k, "a released key is free")
      }
    )
  },
  {
    law: 8,
    name: "a lease that nobody renews ends at its ttl with nobody in line",
    needs: ["tenure lease", ({ tenure }) => tenure === "lease"],
    run: Effect.fnUntraced(
      function*({ a, attempt, elapse, expectFree, expectHeld, granularity, key, minTtl, slack, take }) {
        const k = key()
        yield* take(a, attempt(k, minTtl), "a free key is granted")
        yield* expectHeld(k, "a held key is refused")
        yield* elapse(Duration.sum(minTtl, Duration.sum(granularity, slack)))
        yield* expectFree(k, "the key of a dead holder is free within its ttl and the granularity")
      }
    )
  },
  {
    law: 8,
    name: "the key of a client that died becomes free within the ttl of its last renewal",
    needs: mortal,
    run: Effect.fnUntraced(
      function*(
        { attempt, b, elapse, expectFree, granularity, key, lineUp, minTtl, mortal, now, patience, slack, take, within }
      ) {
        const k = key()
        const holder = attempt(k, minTtl)
        const next = attempt(k)
        const { client, cut } = yield* mortal
        const grant = yield* take(client, holder, "a free key is granted")
        const waiting = yield* lineUp(b, next)
        yield* elapse(Duration.divideUnsafe(minTtl, 3))
        assert.isTrue(Option.isSome(yield* client.renew(holder)), "a lease that is renewed in time stays")
        yield* cut
        const last = yield* now
        const late = Duration.sum(granularity, slack)
        const limit = Duration.sum(grant.ttl, Duration.sum(late, patience))
        yield* within(Fiber.join(waiting), limit, "the key of a client that died becomes free")
        const latest = endOf({ validFrom: last, ttl: Duration.sum(grant.ttl, late) })
        assert.isTrue((yield* now) <= latest, "it is free within its ttl and the granularity")
        assert.isTrue(yield* b.release(next), "the release of a key that was waited for answers true")
        yield* expectFree(k, "a released key is free")
      }
    )
  },
  {
    law: 10,
    name: "no verb hangs when the server is out of reach",
    needs: mortal,
    run: Effect.fnUntraced(
      function*({ attempt, commandTimeout, key, minTtl, mortal, slack, take, within }) {
        const held = attempt(key(), minTtl)
        const { client, cut } = yield* mortal
        yield* take(client, held, "a free key is granted")
        yield* cut
        const other = attempt(key(), minTtl)
        const waiter = attempt(key(), minTtl)
        const limit = Duration.sum(Duration.times(commandTimeout, 2), slack)
        const [tried, acquired] = yield* within(
          Effect.all([
            Effect.exit(client.tryAcquire(other)),
            Effect.exit(client.acquire(waiter)),
            Effect.exit(client.renew(held)),
            Effect.exit(client.release(held))
          ], { concurrency: "unbounded" }),
          limit,
          "every verb ends, also without a server"
        )
        assert.isTrue(Exit.isFailure(tried), "tryAcquire without a server fails")
        assert.isTrue(Exit.isFailure(acquired), "acquire without a server fails")
        assert.isFalse(
          yield* within(client.release(attempt(key())), slack, "a release with nothing to give back asks nobody"),
          "the release of an owner that never asked answers false"
        )
      }
    )
  }
]
