import { LockTest } from "@dlock/core/testing"
import { describe } from "@effect/vitest"
import { available } from "../harness/Program.ts"
import { backend, capabilities, Etcd } from "./support.ts"

describe.skipIf(!available("etcd-3.4"))("3.4", () => {
  LockTest.suiteWith("etcd 3.4", backend, capabilities("4 seconds"), Etcd.layer({ version: "3.4" }))
})
