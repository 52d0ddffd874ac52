import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { RedisLock } from "@dlock/redis"
import { Effect, Layer } from "effect"
import { capabilities, cluster, sentinel, single, Target } from "./support.ts"

const backend = Layer.effect(LockBackend, Effect.flatMap(Target, ({ options }) => RedisLock.make(options)))

LockTest.suiteWith("redis", backend, capabilities, single)
LockTest.suiteWith("redis cluster", backend, capabilities, cluster)
LockTest.suiteWith("redis with sentinels", backend, capabilities, sentinel)
