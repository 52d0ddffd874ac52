import { LockBackend, MemoryLock } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { Effect, Layer } from "effect"

const store = Effect.runSync(MemoryLock.make)

LockTest.suite("memory", Layer.succeed(LockBackend, store), {
  clock: "test",
  tenure: "lease",
  ttl: "request",
  minTtl: "1 second",
  fifo: true,
  pushesLoss: true,
  revocable: Effect.succeed({ client: store, revoke: (request) => store.revoke(request.key) })
})
