import { LockTest } from "@dlock/core/testing"
import { backend, capabilities, clientOfOnesOwn } from "./support.ts"

LockTest.suiteWith("postgres over a client of one's own", backend, capabilities, clientOfOnesOwn)
