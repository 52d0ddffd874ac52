import { LockTest } from "@dlock/core/testing"
import { backend, capabilities, sentinel } from "./support.ts"

LockTest.suiteWith("redis with sentinels", backend, capabilities, sentinel)
