import { LockTest } from "@dlock/core/testing"
import { backend, capabilities, Etcd, withoutQuorum } from "./support.ts"

// Three members on one machine write everything three times.
LockTest.suiteWith(
  "etcd cluster",
  backend,
  { ...capabilities("5 seconds"), busy: withoutQuorum("5 seconds") },
  Etcd.layerCluster
)
