import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { Effect, Layer } from "effect"
import * as Memory from "./support/memory.ts"

const { capabilities, network, store } = Effect.runSync(Memory.make())

LockTest.suite("memory", Layer.succeed(LockBackend, store), capabilities)

LockTest.suite("memory, in real time", Layer.succeed(LockBackend, store), {
  ...capabilities,
  clock: "live",
  minTtl: "300 millis"
})

LockTest.suite(
  "memory, behind a network",
  Layer.effect(LockBackend, Effect.map(network.client, ({ client }) => client)),
  { ...capabilities, inLine: network.inLine }
)
