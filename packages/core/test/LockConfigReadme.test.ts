import { LockConfig } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { sections } from "../src/internal/configTable.ts"
import { layer } from "./support/config.ts"
import { generated, sample, written } from "./support/configDocs.ts"

describe("the README", () => {
  it("lists what can be configured", () => {
    assert.strictEqual(written(), generated, "run `node test/support/configDocs.ts` in packages/core")
  })

  it.effect("has a file that is right, with every name in it", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* LockConfig.redis, {
        addrs: ["localhost:6379"],
        mode: "single",
        db: 0,
        tls: false,
        commandTimeout: Duration.seconds(5)
      })
      for (const { key } of sections.flatMap(({ entries }) => entries)) {
        assert.match(sample, new RegExp(`^ *(# )?${key}: `, "m"), key)
      }
    }).pipe(Effect.provide(layer({ files: { "config.yaml": sample } }))))
})
