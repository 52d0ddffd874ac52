import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { EtcdLock } from "@dlock/etcd"
import { Effect, Layer } from "effect"
import { capabilities, Etcd } from "./support.ts"

const commandTimeout = "1 second"

LockTest.suiteWith(
  "etcd 3.4",
  Layer.effect(LockBackend, Effect.flatMap(Etcd, ({ endpoints }) => EtcdLock.make({ endpoints }))),
  capabilities(commandTimeout),
  Etcd.layer("3.4")
)
