import { LockTest } from "@dlock/core/testing"
import { describe } from "@effect/vitest"
import { available } from "../harness/Program.ts"
import { backend, capabilities, ZooKeeper } from "./support.ts"

for (const version of ["3.8", "3.9"] as const) {
  describe.skipIf(!available(`zookeeper-${version}`))(version, () => {
    LockTest.suiteWith(`ZooKeeper ${version}`, backend, capabilities, ZooKeeper.layer({ version }))
  })
}
