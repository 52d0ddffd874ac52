import { LockTest } from "@dlock/core/testing"
import { backend, capabilities, single } from "./support.ts"

LockTest.suiteWith("postgres", backend, capabilities, single)
