/**
 * A cluster of the newest version, and the backend's own connections. The suite over a driver of the caller's own has the
 * single server and the oldest version: these have nothing to do with each other, and each run takes its time.
 */
import { LockTest } from "@dlock/core/testing"
import { available } from "../harness/Program.ts"
import { backend, capabilities, Etcd, withoutQuorum } from "./support.ts"

// Three members on one machine write everything three times.
LockTest.suiteWith(
  "etcd cluster",
  backend,
  { ...capabilities("5 seconds"), busy: withoutQuorum("5 seconds") },
  Etcd.layerCluster(available("etcd-3.5") ? { version: "3.5" } : {})
)
