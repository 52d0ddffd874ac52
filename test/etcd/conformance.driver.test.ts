/**
 * A single server of the oldest version, and a driver of the caller's own. The suite over a cluster has the rest.
 */
import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { EtcdLock } from "@dlock/etcd"
import { Effect, Layer } from "effect"
import { available } from "../harness/Program.ts"
import { capabilities, Etcd } from "./support.ts"

LockTest.suiteWith(
  "etcd over a driver of one's own",
  Layer.effect(LockBackend, Effect.flatMap(Etcd, ({ bare }) => EtcdLock.makeClient(bare))),
  capabilities("4 seconds"),
  available("etcd-3.4") ? Etcd.layer({ version: "3.4" }) : Etcd.layer()
)
