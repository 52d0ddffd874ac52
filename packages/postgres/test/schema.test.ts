import { PostgresLock } from "@dlock/postgres"
import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"

const file = new URL("../src/schema.sql", import.meta.url)

describe("schema", () => {
  it("schema.sql is the text of the schema dlock", () => {
    const text =
      `-- The schema of @dlock/postgres. Runs as one statement, and may run again.\n${PostgresLock.schema()};\n`
    if (process.env.DLOCK_WRITE_SCHEMA !== undefined) Fs.writeFileSync(file, text)
    assert.strictEqual(Fs.readFileSync(file, "utf8"), text)
  })

  it("any name is quoted, as an identifier and as a text", () => {
    const text = PostgresLock.schema(`It's "odd"`)
    assert.include(text, `create schema if not exists "It's ""odd"""`)
    assert.include(text, `'dlock schema ' || 'It''s "odd"'`)
    assert.notMatch(text, /\{(schema|name)\}/)
  })
})
