import { LockTest } from "@dlock/core/testing"
import { backend, capabilities, ZooKeeper } from "./support.ts"

LockTest.suiteWith("an ensemble of three", backend, capabilities, ZooKeeper.layerEnsemble)
