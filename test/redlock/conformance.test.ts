import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { Redlock } from "@dlock/redis"
import { Effect, Layer } from "effect"
import { addrsOf, capabilities, RedisServers } from "./support.ts"

LockTest.suiteWith(
  "redlock",
  Layer.effect(LockBackend, Effect.flatMap(RedisServers, (nodes) => Redlock.make({ nodes: addrsOf(nodes) }))),
  capabilities,
  RedisServers.layer
)
