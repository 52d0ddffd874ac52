import { type LockBackend, LockBackendError, MemoryLock } from "@dlock/core"
import type { LockTest } from "@dlock/core/testing"
import { Effect } from "effect"
import * as Network from "./network.ts"

type Backend = LockBackend["Service"]

/** What a mutant breaks. */
export interface Change {
  /** The two clients of the suite, and the one whose grants are ended. */
  readonly clients?: ((backend: Backend) => Backend) | undefined
  /** The third client, which is behind a network. */
  readonly third?: ((backend: Backend) => Backend) | undefined
  /** The server at the other end of the network. */
  readonly server?: ((store: Backend) => Backend) | undefined
  /** The backend has no verb that it may leave out. */
  readonly isPoor?: boolean | undefined
}

const unsupported = (operation: string) =>
  Effect.fail(new LockBackendError({ backend: "memory", operation, reason: "Unsupported" }))

const poor = (backend: Backend): Backend => ({
  ...backend,
  tellsWanted: false,
  inspect: () => unsupported("inspect"),
  revoke: () => unsupported("revoke")
})

const rich: Partial<LockTest.Capabilities> = {
  tellsWanted: true,
  reserves: true,
  renewsTokens: true,
  resends: true,
  inspects: { owner: true, token: true, remaining: true, waiting: "owners" },
  revokes: true
}

/** One store, the clients that the suite asks for, and what they can do. */
export const make = (change: Change = {}) =>
  Effect.map(MemoryLock.make, (memory) => {
    const store = change.isPoor ? poor(memory) : memory
    const client = change.clients?.(store) ?? store
    const network = Network.make((change.server ?? Network.withVoidMarks)(store))
    const third = Effect.map(
      network.client,
      (made) => ({ ...made, client: change.third?.(made.client) ?? made.client })
    )
    const during = (begin: (road: Network.Road) => void, end: (road: Network.Road) => void) =>
      Effect.map(third, ({ client, road }) => ({
        client,
        begin: Effect.sync(() => begin(road)),
        end: Effect.sync(() => end(road))
      }))
    const capabilities: LockTest.Capabilities = {
      clock: "test",
      freedBy: "ttl",
      ttl: "request",
      minTtl: "1 second",
      fifo: true,
      pushesLoss: true,
      ...change.isPoor ? {} : rich,
      commandTimeout: "1 second",
      requestsPerSecond: 0,
      revocable: Effect.succeed({ client, revoke: ({ key, owner }) => memory.revoke(key, owner) }),
      mortal: Effect.map(third, ({ client, road }) => ({ client, cut: Effect.sync(() => road.cut()) })),
      late: Effect.map(third, ({ client, road }) => ({
        client,
        holdBack: Effect.sync(() => road.holdBack()),
        breakOff: Effect.sync(() => road.breakOff()),
        deliver: Effect.suspend(() => road.deliver())
      })),
      counted: Effect.map(third, ({ client, road }) => ({ client, requests: Effect.sync(() => road.requests) })),
      swapped: during((road) => road.refuses = true, (road) => road.refuses = false),
      busy: during((road) => road.refuses = true, (road) => road.refuses = false),
      full: during((road) => road.room.closeUnsafe(), (road) => road.room.openUnsafe())
    }
    return { store, client, network, capabilities }
  })
