import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { LockBackendError } from "../../LockError.ts"
import type { Definition } from "../Case.ts"

export const unreachable: ReadonlyArray<Definition> = [
  {
    law: 10,
    name: "no verb hangs when the server is unreachable",
    needs: ["mortal", ({ mortal }) => mortal !== undefined],
    run: Effect.fnUntraced(
      function*({ key, minTtl, mortal, newRequest, take, verbLimit, within }) {
        const held = newRequest(key(), { ttl: minTtl })
        const { client, cut } = yield* mortal
        yield* take(client, held, "a free key is granted")
        yield* cut
        const verbs: Record<string, Effect.Effect<unknown, LockBackendError>> = {
          tryAcquire: client.tryAcquire(newRequest(key(), { ttl: minTtl })),
          acquire: client.acquire(newRequest(key(), { ttl: minTtl })),
          inspect: client.inspect(held.key),
          revoke: client.revoke(held.key, `${held.owner}x`),
          ping: client.ping
        }
        const ends = (verb: Effect.Effect<unknown, LockBackendError>) =>
          within(Effect.exit(verb), verbLimit, "every verb ends, also without a server")
        const fails = ([name, verb]: readonly [string, Effect.Effect<unknown, LockBackendError>]) =>
          Effect.map(ends(verb), (exit) => assert.isTrue(Exit.isFailure(exit), `${name} without a server fails`))
        yield* Effect.all([
          ...Object.entries(verbs).map(fails),
          // A session may answer these two by itself.
          ends(client.renew(held, { fresh: true })),
          ends(client.release(held))
        ], { concurrency: "unbounded", discard: true })
      }
    )
  }
]
