import { LockTest } from "@dlock/core/testing"
import { describe } from "@effect/vitest"
import { available } from "../harness/Program.ts"
import { backend, pooled, pooledCapabilities } from "./support.ts"

describe.skipIf(!available("pgbouncer"))("pooled", () => {
  LockTest.suiteWith("postgres behind PgBouncer", backend, pooledCapabilities, pooled)
})
