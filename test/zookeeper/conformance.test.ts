import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { describe } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { available } from "../harness/Program.ts"
import { capabilities, ZooKeeper } from "./support.ts"

const settings = { sessionTimeout: "3 seconds", commandTimeout: "1 second" } as const

const backend = Layer.effect(
  LockBackend,
  Effect.flatMap(ZooKeeper, ({ servers }) => ZooKeeperLock.make({ servers }))
)

for (const version of ["3.8", "3.9"] as const) {
  describe.skipIf(!available(`zookeeper-${version}`))(version, () => {
    LockTest.suiteWith(`ZooKeeper ${version}`, backend, capabilities(settings), ZooKeeper.layer({ version }))
  })
}

LockTest.suiteWith("an ensemble of three", backend, capabilities(settings), ZooKeeper.layerEnsemble)
