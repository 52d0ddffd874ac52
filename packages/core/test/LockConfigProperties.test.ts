import { LockConfig } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Predicate, Schema } from "effect"
import * as read from "../src/internal/configRead.ts"
import * as table from "../src/internal/configTable.ts"
import { environment, layer } from "./support/config.ts"

const encodings = <A>(section: table.Section<A>, values: A) =>
  Effect.map(
    Schema.encodeEffect(section.schema)(values),
    (encoded) =>
      section.entries.flatMap(({ field, key, variable }) => {
        const value = Predicate.hasProperty(encoded, field) ? encoded[field] : undefined
        return value === undefined ? [] : [{ key, variable, value }]
      })
  )

const outcome = (content: string | Uint8Array) =>
  Effect.exit(Effect.scoped(Layer.build(layer({ files: { "config.yaml": content } }))))

const isTyped = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isSuccess(exit) ||
  exit.cause.reasons.every((reason) => reason._tag === "Fail" && reason.error instanceof LockConfig.LockConfigError)

describe("properties", () => {
  for (const section of table.sections) {
    const name = section.name === "" ? "the locks" : section.name
    const isSame = Schema.toEquivalence(section.schema)

    it.effect.prop(
      `what encodes to the environment decodes to the same: ${name}`,
      [section.schema],
      ([values]) =>
        Effect.gen(function*() {
          const variables = (yield* encodings(section, values)).map(({ value, variable }) => [variable, String(value)])
          const decoded = yield* read.config(section).parse(environment(Object.fromEntries(variables)))
          assert.isTrue(isSame(decoded, values))
        })
    )

    it.effect.prop(
      `what encodes to a file decodes to the same: ${name}`,
      [section.schema],
      ([values]) =>
        Effect.gen(function*() {
          const margin = section.name === "" ? "" : "  "
          const lines = (yield* encodings(section, values)).map(({ key, value }) =>
            `${margin}${key}: ${JSON.stringify(value)}`
          )
          const text = [section.name === "" ? "# top" : `${section.name}:`, ...lines].join("\n")
          const decoded = yield* Effect.provide(read.config(section), layer({ files: { "config.yaml": text } }))
          assert.isTrue(isSame(decoded, values), text)
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
