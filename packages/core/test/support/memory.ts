import { type LockBackend, MemoryLock } from "@dlock/core"
import type { LockTest } from "@dlock/core/testing"
import { Effect } from "effect"
import * as Network from "./network.ts"

type Backend = LockBackend["Service"]

/** One store, the clients that the suite asks for, and what they can do; `change` may break the clients. */
export const make = (change: {
  readonly clients?: ((backend: Backend) => Backend) | undefined
  readonly mortal?: ((backend: Backend) => Backend) | undefined
} = {}) =>
  Effect.map(MemoryLock.make, (store) => {
    const client = change.clients?.(store) ?? store
    const network = Network.make(store)
    const capabilities: LockTest.Capabilities = {
      clock: "test",
      tenure: "lease",
      ttl: "request",
      minTtl: "1 second",
      fifo: true,
      pushesLoss: true,
      revocable: Effect.succeed({ client, revoke: ({ key }) => store.revoke(key) }),
      mortal: Effect.map(network.client, ({ client, cut }) => ({ client: change.mortal?.(client) ?? client, cut }))
    }
    return { store, client, network, capabilities }
  })
