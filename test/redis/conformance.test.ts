import { LockTest } from "@dlock/core/testing"
import { backend, single, singleCapabilities } from "./support.ts"

LockTest.suiteWith("redis", backend, singleCapabilities(), single())
