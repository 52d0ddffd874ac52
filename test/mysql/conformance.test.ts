import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { Layer } from "effect"
import { describe } from "vitest"
import { backend, capabilities, flavours, MysqlServer } from "./support.ts"

for (const flavour of flavours) {
  describe.skipIf(!flavour.runs)(flavour.name, () => {
    LockTest.suiteWith("mysql", Layer.effect(LockBackend, backend), capabilities, MysqlServer.layer(flavour))
  })
}
