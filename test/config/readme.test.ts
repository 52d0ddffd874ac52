import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { sectionsOf } from "../../packages/core/src/internal/config/table.ts"
import { layer } from "../../packages/core/test/support/config.ts"
import { generated, sample, written } from "../../scripts/configDocs.ts"
import { backends, redis } from "./backends.ts"

describe("the README", () => {
  it("lists what can be configured", () => {
    assert.strictEqual(written(), generated, "run `node scripts/configDocs.ts`")
  })

  it.effect("has a file that is right, with every name in it", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* redis.config, {
        addrs: ["localhost:6379"],
        mode: "single",
        db: 0,
        tls: false,
        commandTimeout: Duration.seconds(5)
      })
      for (const { key } of sectionsOf(backends).flatMap(({ entries }) => entries)) {
        assert.match(sample, new RegExp(`^ *(# )?${key}: `, "m"), key)
      }
    }).pipe(Effect.provide(layer({ backends, files: { "config.yaml": sample } }))))
})
