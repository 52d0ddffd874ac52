import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { EtcdLock } from "@dlock/etcd"
import { Effect, Layer } from "effect"
import { capabilities, Etcd } from "./support.ts"

LockTest.suiteWith(
  "etcd over a driver of one's own",
  Layer.effect(LockBackend, Effect.flatMap(Etcd, ({ bare }) => EtcdLock.makeClient(bare))),
  capabilities("4 seconds"),
  Etcd.layer()
)
