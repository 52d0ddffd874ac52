import { LockTest } from "@dlock/core/testing"
import { backend, cluster, clusterCapabilities } from "./support.ts"

LockTest.suiteWith("redis cluster", backend, clusterCapabilities(), cluster())
