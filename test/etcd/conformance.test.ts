import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { EtcdLock } from "@dlock/etcd"
import { describe } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { available } from "../harness/Program.ts"
import { capabilities, Etcd } from "./support.ts"

const backend = Layer.effect(LockBackend, Effect.flatMap(Etcd, ({ endpoints }) => EtcdLock.make({ endpoints })))

for (const version of ["3.4", "3.5"] as const) {
  describe.skipIf(!available(`etcd-${version}`))(version, () => {
    LockTest.suiteWith(`etcd ${version}`, backend, capabilities("1 second"), Etcd.layer({ version }))
  })
}

// Three members on one machine write everything three times.
LockTest.suiteWith("etcd cluster", backend, capabilities("3 seconds"), Etcd.layerCluster)

LockTest.suiteWith(
  "etcd over a driver of one's own",
  Layer.effect(LockBackend, Effect.flatMap(Etcd, ({ bare }) => EtcdLock.makeClient(bare))),
  capabilities("1 second"),
  Etcd.layer()
)
