import { assert } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Options from "../../backend/Options.ts"
import { Lock } from "../../Lock.ts"
import { LockBackendError } from "../../LockError.ts"
import { persist } from "../Time.ts"
import type { Definition } from "./Case.ts"
import { mustFail, patience, within } from "./Case.ts"
import * as strangers from "./strangers.ts"

/** What is wrong for every option of a kind, by the title of the kind. */
const wrongFor: { readonly [title in string]?: ReadonlyArray<unknown> } = {
  duration: [-5, Number.NaN, "nonsense", null, {}],
  list: ["127.0.0.1:99999", ["localhost:0"], [], [1], "a b", null],
  integer: [-1, Number.NaN, 1.5, "one", null],
  boolean: ["maybe", 3, null],
  text: [5, null, {}],
  "secret text": [5, null, {}]
}

const anything = [Number.NaN, null, 3]

/** Options with one that is wrong, as plain JavaScript may have them. */
const wrongOptions = ({ entries }: Options.Declaration): ReadonlyArray<readonly [name: string, value: unknown]> => [
  ...entries
    .filter(({ suffix }) => suffix === "")
    .flatMap(({ kind, option }) => (wrongFor[kind.title] ?? anything).map((value) => [option, value] as const)),
  ["adrrs", "localhost"],
  ["constructor", "localhost"]
]

export const options: ReadonlyArray<Definition> = [
  {
    name: "options that are wrong are one clear line that names them",
    run: ({ adapter }) =>
      Effect.gen(function*() {
        const place = yield* strangers.nothing
        for (const [name, value] of wrongOptions(adapter.declaration)) {
          const options = Object.assign(adapter.options(place), { [name]: value })
          const error = yield* mustFail(Effect.scoped(adapter.make(options)), `${name} is refused`)
          assert.instanceOf(error, LockBackendError)
          assert.strictEqual(error.reason, "Options", error.message)
          assert.include(error.message, name)
          assert.notInclude(error.message, "\n")
        }
      })
  },
  {
    name: "the configuration leads to the same locks as the options, and a near miss is told",
    run: (kit) =>
      Effect.gen(function*() {
        const { adapter } = kit
        const server = yield* kit.server
        const variables = adapter.environment(server)
        const configured = (variables: Record<string, string>) =>
          Layer.build(adapter.layerConfig()).pipe(
            Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnvRecord(variables))
          )
        const lock = Context.get(yield* Effect.orDie(persist(configured(variables))), Lock)
        const client = yield* kit.client(server)
        const key = `configured/${crypto.randomUUID()}`
        const inside = yield* Effect.orDie(
          within(persist(lock.withLock(key, client.tryAcquire(kit.request(key)))), patience, "a lock is had")
        )
        assert.isTrue(Option.isNone(inside), "each excludes the other")
        const [entry] = adapter.declaration.entries
        const miss = `${entry?.variable}X`
        const error = yield* mustFail(
          Effect.scoped(configured({ ...variables, [miss]: "1" })),
          "a near miss is an error"
        )
        assert.include(error.message, miss)
      })
  }
]
