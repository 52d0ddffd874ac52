/**
 * A cluster of the newest Redis. Single servers show that the scripts run on each version, and sentinels have the oldest.
 */
import { LockTest } from "@dlock/core/testing"
import { available } from "../harness/Program.ts"
import { backend, cluster, clusterCapabilities } from "./support.ts"

const kind = available("redis-8") ? "redis-8" : "redis"

LockTest.suiteWith(`${kind} cluster`, backend, clusterCapabilities(kind), cluster(kind))
