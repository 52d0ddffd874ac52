import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { LockBackendError } from "../../LockError.ts"
import type { Definition } from "../Case.ts"
import { isPending } from "../Kit.ts"

/** Servers that are swapped, busy or full. */
export const disturbed: ReadonlyArray<Definition> = [
  {
    law: 12,
    name: "a client that is led to another server does not hold a key twice",
    needs: ["swapped", ({ swapped }) => swapped !== undefined],
    run: Effect.fnUntraced(
      function*(
        { b, commandTimeout, endLimit, key, newRequest, now, patience, settle, swapped, take, until, verbLimit, within }
      ) {
        const { begin, client, end } = yield* swapped
        const holder = newRequest(key())
        yield* take(client, holder, "a free key is granted")
        yield* begin
        const stop = (yield* now) + 2 * commandTimeout
        for (let tries = 0; tries < 20 && (yield* now) <= stop; tries++) {
          const other = newRequest(holder.key)
          const granted = yield* within(Effect.exit(client.tryAcquire(other)), verbLimit, "tryAcquire comes to an end")
          if (Exit.isSuccess(granted) && Option.isSome(granted.value)) {
            const renewed = yield* Effect.exit(client.renew(holder, { fresh: true }))
            assert.isFalse(
              Exit.isSuccess(renewed) && Option.isSome(renewed.value),
              "a grant of the server before has ended once the other server grants the key"
            )
            yield* client.release(other)
          }
          yield* settle
        }
        yield* end
        yield* until(
          Effect.map(Effect.exit(client.release(holder)), Exit.isSuccess),
          verbLimit + patience,
          "a release is answered once the server is back"
        )
        const next = newRequest(holder.key)
        yield* within(b.acquire(next), endLimit, "a released key is free")
        yield* b.release(next)
      }
    )
  },
  {
    law: 13,
    name: "a reply that passes by itself is Unreachable for every verb, and passes",
    needs: ["busy", ({ busy }) => busy !== undefined],
    run: Effect.fnUntraced(
      function*(
        { b, busy, capabilities, endLimit, key, minTtl, newRequest, patience, take, until, verbLimit, within }
      ) {
        const { begin, client, end } = yield* busy
        const held = newRequest(key())
        yield* take(client, held, "a free key is granted")
        yield* begin
        const verbs: Record<string, Effect.Effect<unknown, LockBackendError>> = {
          tryAcquire: client.tryAcquire(newRequest(key(), { ttl: minTtl })),
          acquire: client.acquire(newRequest(key(), { ttl: minTtl })),
          renew: client.renew(held, { fresh: true }),
          release: client.release(held),
          ...(capabilities.inspects && { inspect: client.inspect(held.key) }),
          ...(capabilities.revokes && { revoke: client.revoke(held.key, `${held.owner}x`) }),
          ping: client.ping
        }
        yield* Effect.forEach(Object.entries(verbs), ([name, verb]) =>
          Effect.gen(function*() {
            const exit = yield* within(Effect.exit(verb), verbLimit, `${name} comes to an end`)
            const error = Exit.isFailure(exit) ? Option.getOrUndefined(Exit.findErrorOption(exit)) : undefined
            assert.strictEqual(error?.reason, "Unreachable", `${name} fails as Unreachable`)
          }), { concurrency: "unbounded", discard: true })
        yield* end
        yield* until(
          Effect.map(Effect.exit(client.release(held)), Exit.isSuccess),
          verbLimit + patience,
          "a release is answered once the server is back"
        )
        const next = newRequest(held.key)
        yield* within(b.acquire(next), endLimit, "a released key is free")
        yield* b.release(next)
      }
    )
  },
  {
    law: 13,
    name: "a waiter outlasts a server without room for it",
    // Other cases use the same server.
    heavy: true,
    needs: ["full", ({ full }) => full !== undefined],
    run: Effect.fnUntraced(
      function*({ a, commandTimeout, elapse, expectFree, full, key, margin, newRequest, patience, take, within }) {
        const { begin, client, end } = yield* full
        const holder = newRequest(key())
        const waiter = newRequest(holder.key)
        yield* take(a, holder, "a free key is granted")
        yield* begin
        const waiting = yield* Effect.forkScoped(client.acquire(waiter), { startImmediately: true })
        yield* elapse(commandTimeout * 2 + margin)
        assert.isTrue(isPending(waiting), "a waiter goes on while the server has no room for it")
        yield* end
        yield* a.release(holder)
        yield* within(Fiber.join(waiting), patience, "a waiter is granted the key once the server has room")
        yield* client.release(waiter)
        yield* expectFree(holder.key, "a released key is free")
      }
    )
  }
]
