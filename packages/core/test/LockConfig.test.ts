import { LockConfig, LockRegistry, MemoryLock } from "@dlock/core"
import { Options } from "@dlock/core/backend"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Logger } from "effect"
import { environment, layer, problems } from "./support/config.ts"

/** A backend as a third party would write it. */
const declaration = Options.declare("cabinet", {
  addrs: Options.addresses({ port: 1, description: "The drawers.", default: ["localhost"] }),
  port: Options.integer({ minimum: 1, maximum: 65_535, description: "The port.", default: 1 }),
  keyPrefix: Options.text({ description: "Stands before every key." })
})
const cabinet = {
  name: "cabinet",
  declaration,
  layerConfig: () => LockConfig.layerLock(declaration.config, () => MemoryLock.make, declaration)
}
const backends = [cabinet]

/** What is logged while an effect runs. */
const logged = <A, E, R>(self: Effect.Effect<A, E, R>) => {
  const messages: Array<unknown> = []
  const logger = Logger.make(({ message }) => void messages.push(message))
  return Effect.map(Effect.provide(self, Logger.layer([logger])), () => messages.flat())
}

const build = <A, E>(self: Layer.Layer<A, E>) => Effect.scoped(Layer.build(self))

const provided = (variables: Record<string, string>) => Layer.provide(ConfigProvider.layer(environment(variables)))

const registry = (provider: ConfigProvider.ConfigProvider) =>
  build(Layer.provide(LockRegistry.layerConfig(backends), ConfigProvider.layer(provider)))

describe("a variable that nothing reads", () => {
  it.effect("is an error where it is a near miss", () =>
    Effect.gen(function*() {
      for (
        const [variable, meant] of [
          ["DLOCK_TTLL", "DLOCK_TTL"],
          ["DLOCK_TLT", "DLOCK_TTL"],
          ["DLOCK_TIME_OUT", "DLOCK_TIMEOUT"],
          ["DLOCK_CONFG", "DLOCK_CONFIG"],
          ["DLOCK_CABINET_ADDR", "DLOCK_CABINET_ADDRS"],
          ["DLOCK_CABINET_KEYPREFIX", "DLOCK_CABINET_KEY_PREFIX"],
          ["DLOCK_CABINET_ENABLE", "DLOCK_CABINET_ENABLED"],
          ["DLOCK_CABINT_ENABLED", "DLOCK_CABINET_ENABLED"]
        ] as const
      ) {
        const problem = `unknown variable, the nearest known name is "${meant}"`
        const env = { [variable]: "1" }
        assert.deepStrictEqual(yield* problems({ backends, env }), [`${variable}: ${problem}`])
        const error = yield* Effect.flip(registry(environment(env)))
        assert.include(String(error), problem)
        assert.include(String(error), variable)
      }
    }))

  it.effect("is one also for a program with a single backend", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(build(cabinet.layerConfig().pipe(provided({ DLOCK_CABINET_ADDR: "one" }))))
      assert.include(String(error), "the nearest known name is \"DLOCK_CABINET_ADDRS\"")
      yield* build(cabinet.layerConfig().pipe(provided({ DLOCK_CUPBOARD_ADDRS: "one" })))
    }))

  it.effect("is a warning otherwise, once", () =>
    Effect.gen(function*() {
      const env = { DLOCK_COLOUR: "red", DLOCK_CUPBOARD_ADDRS: "one:1", DLOCK_CABINET_ADDRS: "one:1" }
      const both = build(LockRegistry.layerConfig(backends).pipe(provided(env)))
      const byFile = build(layer({ backends, env }))
      assert.deepStrictEqual(yield* logged(Effect.andThen(both, byFile)), [
        "Nothing reads DLOCK_COLOUR, DLOCK_CUPBOARD_ADDRS"
      ])
    }))

  it.effect("is left alone where it is reserved, or Kubernetes sets it", () =>
    Effect.gen(function*() {
      const link = "tcp://10.0.0.1:6379"
      const env = {
        DLOCK_KEY: "k",
        DLOCK_OWNER: "o",
        DLOCK_FENCING_TOKEN: "1",
        DLOCK_TEST_ANYTHING: "1",
        DLOCK_PORT: link,
        DLOCK_SERVICE_HOST: "10.0.0.1",
        DLOCK_CABINET_SERVICE_HOST: "10.0.0.1",
        DLOCK_CABINET_SERVICE_PORT: "6379",
        DLOCK_CABINET_SERVICE_PORT_MAIN: "6379",
        DLOCK_CABINET_PORT: link,
        DLOCK_CABINET_PORT_6379_TCP: link,
        DLOCK_CABINET_PORT_6379_TCP_PROTO: "tcp",
        DLOCK_CABINET_PORT_6379_TCP_PORT: "6379",
        DLOCK_CABINET_PORT_6379_TCP_ADDR: "10.0.0.1"
      }
      const all = Effect.andThen(
        build(LockRegistry.layerConfig(backends).pipe(provided(env))),
        build(layer({ backends, env }))
      )
      assert.deepStrictEqual(yield* logged(all), [])
      assert.deepStrictEqual(yield* declaration.config.parse(environment(env)), {}, "a link is no port")
      assert.deepStrictEqual(yield* declaration.config.parse(environment({ DLOCK_CABINET_PORT: "5" })), { port: 5 })
    }))

  it.effect("is noticed whatever the source of the variables is, unless that cannot tell", () =>
    Effect.gen(function*() {
      const names = ConfigProvider.fromUnknown({ DLOCK_TTLL: "5s" })
      const silent = ConfigProvider.make((path) =>
        path.length === 0
          ? Effect.fail(new ConfigProvider.SourceError({ message: "no list" }))
          : Effect.succeed(path[0] === "DLOCK_TTL" ? ConfigProvider.makeValue("5s") : undefined)
      )
      assert.include(String(yield* Effect.flip(registry(names))), "DLOCK_TTLL")
      yield* registry(silent)
    }))
})

const read = (yaml: string, more: { readonly section?: string } = {}) =>
  Effect.provide(declaration.config, layer({ backends, files: { "config.yaml": yaml }, ...more }))
const wrong = (yaml: string, more: { readonly section?: string } = {}) =>
  problems({ backends, files: { "config.yaml": yaml }, ...more })

describe("the file", () => {
  it.effect("may be the application's own, with a section for us", () =>
    Effect.gen(function*() {
      const yaml = "name: shop\ntimeout: soon\ncabinet: {doors: 2}\ndlock:\n  ttl: 5s\n  cabinet: {port: 7}\n"
      assert.deepStrictEqual(yield* read(yaml), { port: 7 })
      assert.deepStrictEqual(
        yield* read("app: {ttl: 1s, cabinet: {port: 8}}\ndlock: {cabinet: {port: 7}}", { section: "app" }),
        {
          port: 8
        }
      )
      assert.deepStrictEqual(yield* read("cabinet: {port: 7}", { section: "app" }), {}, "only the section is read")
      assert.deepStrictEqual(yield* wrong("dlock:\n  tll: 5s\n  colour: red\n  cabinet: {prt: 5}"), [
        "config.yaml: dlock.tll: unknown key, the nearest known name is \"ttl\"",
        "config.yaml: dlock.colour: unknown key",
        "config.yaml: dlock.cabinet.prt: unknown key, the nearest known name is \"port\""
      ])
      assert.deepStrictEqual(yield* wrong("dlock: 5"), ["config.yaml: dlock: expected a mapping, got a number"])
    }))

  it.effect("has foreign sections left alone, unless they are a near miss", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* read("title: shop\nlogging: {level: info}\ncabinet: {port: 7}"), { port: 7 })
      assert.deepStrictEqual(yield* wrong("cabinets: {port: 7}\ndlok: {ttl: 5s}\ntimeot: 5s"), [
        "config.yaml: cabinets: unknown key, the nearest known name is \"cabinet\"",
        "config.yaml: dlok: unknown key, the nearest known name is \"dlock\"",
        "config.yaml: timeot: unknown key, the nearest known name is \"timeout\""
      ])
    }))

  it.effect("is read by a backend that was not passed, too", () =>
    Effect.gen(function*() {
      for (const yaml of ["cabinet: {port: 7, addrs: [a, b]}", "dlock: {cabinet: {port: 7, addrs: [a, b]}}"]) {
        assert.deepStrictEqual(
          yield* Effect.provide(declaration.config, layer({ files: { "config.yaml": yaml } })),
          { port: 7, addrs: ["a", "b"] }
        )
      }
    }))
})
