import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { Effect, Layer } from "effect"
import { capabilities, ZooKeeper } from "./support.ts"

const settings = { sessionTimeout: "3 seconds", commandTimeout: "1 second" } as const

const backend = Layer.effect(
  LockBackend,
  Effect.flatMap(ZooKeeper, ({ servers }) => ZooKeeperLock.make({ servers }))
)

LockTest.suiteWith("ZooKeeper 3.8", backend, capabilities(settings), ZooKeeper.layer({ version: "3.8" }))
