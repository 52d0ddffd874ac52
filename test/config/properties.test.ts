import { LockConfig } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Schema } from "effect"
import * as declaration from "../../packages/core/src/internal/config/declaration.ts"
import { find } from "../../packages/core/src/internal/config/file.ts"
import * as table from "../../packages/core/src/internal/config/table.ts"
import { environment, files, layer } from "../../packages/core/test/support/config.ts"
import { backends } from "./backends.ts"

const sections = table.sectionsOf(backends)

const outcome = (content: string | Uint8Array) =>
  Effect.exit(Effect.scoped(Layer.build(layer({ backends, files: { "config.yaml": content } }))))

const isTyped = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isSuccess(exit) ||
  exit.cause.reasons.every((reason) => reason._tag === "Fail" && reason.error instanceof LockConfig.LockConfigError)

describe("properties", () => {
  for (const section of sections) {
    const name = section.name === "" ? "the locks" : section.name
    const values = Schema.Struct(Object.fromEntries(
      section.entries.map(({ kind, variable }) => [variable, Schema.optionalKey(kind.schema)])
    ))
    const encode = Schema.encodeEffect(values)
    const decode = Schema.decodeUnknownEffect(values)
    const isSame = Schema.toEquivalence(values)

    it.effect.prop(
      `what encodes to the environment decodes to the same: ${name}`,
      [values],
      ([given]) =>
        Effect.gen(function*() {
          const encoded = Object.entries(yield* encode(given)).map(([variable, value]) => [variable, String(value)])
          const written = yield* declaration.rawAll(section.entries).parse(environment(Object.fromEntries(encoded)))
          assert.isTrue(isSame(yield* decode(written), given))
        })
    )

    it.effect.prop(
      `what encodes to a file decodes to the same: ${name}`,
      [values],
      ([given]) =>
        Effect.gen(function*() {
          const encoded = yield* encode(given)
          const margin = section.name === "" ? "" : "  "
          const lines = section.entries.flatMap(({ key, variable }) =>
            variable in encoded ? [`${margin}${key}: ${JSON.stringify(encoded[variable])}`] : []
          )
          const text = [section.name === "" ? "# top" : `${section.name}:`, ...lines].join("\n")
          const file = yield* find("app.yaml", environment({}), { sections, section: undefined }).pipe(
            Effect.provide(files({ "app.yaml": text }))
          )
          const written = Object.fromEntries([...file.values].map(([variable, { value }]) => [variable, value]))
          assert.deepStrictEqual(file.problems, [], text)
          assert.isTrue(isSame(yield* decode(written), given), text)
        })
    )
  }

  it.effect.prop(
    "any bytes in the file are a typed error at worst",
    [Schema.Uint8Array],
    ([bytes]) => Effect.map(outcome(bytes), isTyped),
    { arbitrary: { runs: 500 } }
  )

  const words = [
    "redis",
    "ttl",
    "addrs",
    "db",
    "password",
    "__proto__",
    "constructor",
    "<<",
    "hunter2",
    "5s",
    "1",
    "true",
    "~"
  ]
  const marks = [
    ":",
    ": ",
    "\n",
    "\n  ",
    "- ",
    ", ",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "&a ",
    "*a",
    "|",
    ">",
    "#",
    " ",
    "\t",
    "---",
    "\\"
  ]

  it.effect.prop(
    "any text that looks like YAML is a typed error at worst",
    [Schema.Array(Schema.Literals([...words, ...marks]))],
    ([parts]) => Effect.map(outcome(parts.join("")), isTyped),
    { arbitrary: { runs: 500, size: 40 } }
  )

  it.effect.prop(
    "a password is in no error, wherever it stands",
    [
      Schema.Literals([
        "password: ",
        "password: [",
        "password: {x: ",
        "password: *",
        "password: \"",
        "password: &",
        "password: 5 : ",
        "password:\n    - "
      ]),
      Schema.String
    ],
    ([written, rest]) =>
      Effect.gen(function*() {
        const text = `redis:\n  db: x\n  ${written}hunter2${rest}`
        const exit = yield* outcome(text)
        assert.isTrue(isTyped(exit))
        assert.notInclude(
          Exit.isFailure(exit) ? String(Exit.findError(exit)) + String(exit.cause) : "",
          "hunter2",
          text
        )
      }),
    { arbitrary: { runs: 500 } }
  )
})
