/**
 * A single server of the oldest version; the ensemble has the newest.
 */
import { LockTest } from "@dlock/core/testing"
import { available } from "../harness/Program.ts"
import { backend, capabilities, ZooKeeper } from "./support.ts"

const options = available("zookeeper-3.8") ? { version: "3.8" } as const : {}

LockTest.suiteWith("ZooKeeper", backend, capabilities, ZooKeeper.layer(options))
