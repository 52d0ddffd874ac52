import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { RedisLock } from "@dlock/redis"
import { Effect, Layer } from "effect"
import { capabilities, RedisServer } from "./support.ts"

LockTest.suiteWith(
  "redis",
  Layer.effect(LockBackend, Effect.flatMap(RedisServer, ({ server }) => RedisLock.make({ addrs: [server.addr] }))),
  capabilities,
  RedisServer.layer
)
