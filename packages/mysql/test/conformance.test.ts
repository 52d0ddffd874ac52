import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { Context, Effect, Layer } from "effect"
import * as FakeServer from "./FakeServer.ts"
import { backendOf, nameOf } from "./support.ts"

class Fake extends Context.Service<Fake, FakeServer.FakeServer>()("test/Fake") {}

const backend = Effect.flatMap(Fake, (fake) => backendOf(fake, { connectionLimit: 300 }))

LockTest.suiteWith(
  "mysql on a server in memory",
  Layer.effect(LockBackend, backend),
  {
    clock: "test",
    freedBy: "session",
    ttl: "request",
    minTtl: "10 seconds",
    granularity: "1 second",
    fifo: true,
    reserves: true,
    renewsTokens: true,
    inspects: { owner: false, token: false, remaining: false, waiting: "number" },
    pushesLoss: true,
    inLine: (key) => Effect.map(Fake, (fake) => fake.waiters(nameOf(key))),
    revocable: Effect.gen(function*() {
      const fake = yield* Fake
      const client = yield* backend
      const revoke = ({ key }: { readonly key: string }) => Effect.sync(() => fake.kill(fake.holder(nameOf(key)) ?? 0))
      return { client, revoke }
    })
  },
  Layer.sync(Fake, FakeServer.make)
)
