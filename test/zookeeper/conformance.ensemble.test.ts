import { LockTest } from "@dlock/core/testing"
import { available } from "../harness/Program.ts"
import { backend, capabilities, ZooKeeper } from "./support.ts"

const options = available("zookeeper-3.9") ? { version: "3.9" } as const : {}

LockTest.suiteWith("an ensemble of three", backend, capabilities, ZooKeeper.layerEnsemble(options))
