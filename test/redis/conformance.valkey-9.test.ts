import { LockTest } from "@dlock/core/testing"
import { describe } from "@effect/vitest"
import { available } from "../harness/Program.ts"
import { backend, single, singleCapabilities } from "./support.ts"

const kind = "valkey-9"

describe.skipIf(!available(kind))(kind, () => {
  LockTest.suiteWith(kind, backend, singleCapabilities(kind), single(kind))
})
