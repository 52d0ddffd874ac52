import { Lock, LockBackendError, LockConfig, LockRegistry, MemoryLock } from "@dlock/core"
import { Options } from "@dlock/core/backend"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Context, Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { environment } from "./support/config.ts"

const unreachable = (backend: string) => new LockBackendError({ backend, operation: "connect", reason: "Unreachable" })

/** A lock layer that says when it is built and closed; `build` runs in between. */
const probe = (name: string, build: Effect.Effect<void, LockBackendError> = Effect.void) => {
  const events: Array<string> = []
  const layer = Layer.effect(
    Lock,
    Effect.gen(function*() {
      events.push("build")
      yield* Effect.addFinalizer(() => Effect.sync(() => events.push("close")))
      yield* build
      events.push("built")
      return { ...(yield* Lock), backend: name }
    })
  ).pipe(Layer.provide(MemoryLock.layer))
  return { name, events, layer }
}

const inScope = (layer: Layer.Layer<LockRegistry.LockRegistry>) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const context = yield* Layer.buildWithScope(layer, scope)
    const registry = Context.get(context, LockRegistry.LockRegistry)
    return { registry, close: Scope.close(scope, Exit.void) }
  })

const backend = (name: string) => {
  const { events, layer } = probe(name)
  return { name, events, layerConfig: () => layer }
}
const configured = (variables: Record<string, string>) => Layer.provide(ConfigProvider.layer(environment(variables)))

describe("a registry of layers", () => {
  it.effect("gives each by its name", () => {
    const [one, two] = [probe("one"), probe("two")]
    return Effect.gen(function*() {
      assert.deepStrictEqual(yield* LockRegistry.names, ["one", "two"])
      assert.strictEqual((yield* LockRegistry.get("two")).backend, "two")
      const here = Effect.map(Lock, ({ backend }) => backend)
      assert.strictEqual(yield* here.pipe(LockRegistry.withBackend("one")), "one")
      assert.strictEqual(yield* here.pipe(LockRegistry.withBackend("two")), "two")
    }).pipe(Effect.provide(LockRegistry.layer({ one: one.layer, two: two.layer })))
  })

  it.effect("runs a program on the one that it is told, and leaves its errors as they are", () =>
    Effect.gen(function*() {
      const section = Effect.flatMap(Lock, (lock) => lock.withLock("k", Effect.fail("mine" as const)))
      assert.strictEqual(yield* Effect.flip(section.pipe(LockRegistry.withBackend("memory"))), "mine")
    }).pipe(Effect.provide(LockRegistry.layer({ memory: MemoryLock.layer }))))

  it.effect("tells what there is when a name is unknown", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(LockRegistry.get("redi"))
      assert.deepInclude(error, { name: "LockNotFound", backend: "redi", reason: "unknown", names: ["redis", "etcd"] })
      assert.strictEqual(error.message, "The lock backend \"redi\" is not known; there are: \"redis\", \"etcd\"")
      assert.strictEqual((yield* Effect.flip(LockRegistry.get("constructor")))._tag, "LockNotFound")
      assert.strictEqual(
        (yield* Effect.flip(Effect.void.pipe(LockRegistry.withBackend(""))))._tag,
        "LockNotFound",
        "a program does not run on a backend that is not there"
      )
    }).pipe(Effect.provide(LockRegistry.layer({ redis: MemoryLock.layer, etcd: MemoryLock.layer }))))

  it.effect("that is closed says so, and interrupts no caller", () =>
    Effect.gen(function*() {
      const { close, registry } = yield* inScope(LockRegistry.layer({ one: probe("one").layer }))
      yield* registry.get("one")
      yield* close
      const error = yield* Effect.flip(registry.get("one"))
      assert.deepInclude(error, {
        _tag: "LockBackendError",
        backend: "one",
        reason: "Closed",
        detail: "the LockRegistry layer is closed"
      })
    }))

  it.effect("pings all of them, and tells why one could not be built until it can", () => {
    let isReachable = false
    const late = probe("late", Effect.suspend(() => isReachable ? Effect.void : Effect.fail(unreachable("late"))))
    const silent = Layer.effect(
      Lock,
      Effect.map(Lock, (lock) => ({ ...lock, ping: Effect.fail(unreachable("silent")) }))
    )
    return Effect.gen(function*() {
      const first = yield* LockRegistry.ping
      assert.deepStrictEqual([...first], [
        ["one", undefined],
        ["late", unreachable("late")],
        ["silent", unreachable("silent")]
      ])
      isReachable = true
      assert.isUndefined((yield* LockRegistry.ping).get("late"), "it is built when it is asked for")
      assert.deepStrictEqual(late.events, ["build", "close", "build", "close", "build", "built"])
    }).pipe(Effect.provide(LockRegistry.layer({
      one: MemoryLock.layer,
      late: late.layer,
      silent: Layer.provide(silent, MemoryLock.layer)
    })))
  })

  it.effect("pings those that are built when they are asked for", () =>
    Effect.gen(function*() {
      const one = probe("one")
      const { registry } = yield* inScope(LockRegistry.layer({ one: one.layer }, { build: "lazy" }))
      assert.deepStrictEqual([...yield* registry.ping], [["one", undefined]])
      assert.deepStrictEqual(one.events, ["build", "built"])
    }))

  it.effect("may be empty", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* LockRegistry.names, [])
      assert.include((yield* Effect.flip(LockRegistry.get("redis"))).message, "there are: none")
    }).pipe(Effect.provide(LockRegistry.layer({}))))

  it.effect("builds all of them at the start, and each once", () =>
    Effect.gen(function*() {
      const [one, two] = [probe("one"), probe("two")]
      const { close, registry } = yield* inScope(LockRegistry.layer({ one: one.layer, two: two.layer }))
      assert.deepStrictEqual([one.events, two.events], [["build", "built"], ["build", "built"]])
      assert.strictEqual(yield* registry.get("one"), yield* registry.get("one"))
      yield* close
      assert.deepStrictEqual([one.events, two.events], [["build", "built", "close"], ["build", "built", "close"]])
    }))

  it.effect("builds side by side at the start", () =>
    Effect.gen(function*() {
      const slow = probe("slow", Effect.sleep("5 seconds"))
      const fiber = yield* inScope(LockRegistry.layer({ one: slow.layer, two: Layer.fresh(slow.layer) })).pipe(
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust("5 seconds")
      assert.isDefined(fiber.pollUnsafe(), "two slow ones take as long as one")
    }))

  it.effect("builds each when it is first asked for", () =>
    Effect.gen(function*() {
      const [one, two] = [probe("one"), probe("two")]
      const { close, registry } = yield* inScope(
        LockRegistry.layer({ one: one.layer, two: two.layer }, { build: "lazy" })
      )
      assert.deepStrictEqual([one.events, two.events], [[], []])
      yield* registry.get("one")
      assert.deepStrictEqual([one.events, two.events], [["build", "built"], []])
      yield* close
      assert.deepStrictEqual([one.events, two.events], [["build", "built", "close"], []])
    }))

  it.effect("builds one once for all that ask at the same time", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const one = probe("one", Deferred.await(gate))
      const { registry } = yield* inScope(LockRegistry.layer({ one: one.layer }, { build: "lazy" }))
      const fibers = yield* Effect.forEach(
        [1, 2, 3],
        () => Effect.forkChild(registry.get("one"), { startImmediately: true })
      )
      yield* Deferred.succeed(gate, undefined)
      const [first, ...others] = yield* Fiber.joinAll(fibers)
      for (const other of others) assert.strictEqual(other, first)
      assert.deepStrictEqual(one.events, ["build", "built"])
    }))

  it.effect("goes on with a build for the others when the first caller is interrupted", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const one = probe("one", Deferred.await(gate))
      const { registry } = yield* inScope(LockRegistry.layer({ one: one.layer }, { build: "lazy" }))
      const first = yield* Effect.forkChild(registry.get("one"), { startImmediately: true })
      const second = yield* Effect.forkChild(registry.get("one"), { startImmediately: true })
      yield* Fiber.interrupt(first)
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual((yield* Fiber.join(second)).backend, "one")
      assert.deepStrictEqual(one.events, ["build", "built"])
    }))

  it.effect("gives up a build that no caller waits for any more, and builds anew", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const one = probe("one", Deferred.await(gate))
      const { registry } = yield* inScope(LockRegistry.layer({ one: one.layer }, { build: "lazy" }))
      const first = yield* Effect.forkChild(registry.get("one"), { startImmediately: true })
      yield* Fiber.interrupt(first)
      assert.deepStrictEqual(one.events, ["build", "close"], "what was half built is closed")
      yield* Deferred.succeed(gate, undefined)
      yield* registry.get("one")
      assert.deepStrictEqual(one.events, ["build", "close", "build", "built"])
    }))

  it.effect("takes no other down with one that is unreachable, and tries that one again", () =>
    Effect.gen(function*() {
      let up = false
      const one = probe("one", Effect.suspend(() => up ? Effect.void : Effect.fail(unreachable("one"))))
      const two = probe("two")
      const { close, registry } = yield* inScope(LockRegistry.layer({ one: one.layer, two: two.layer }))
      assert.deepStrictEqual(registry.names, ["one", "two"])
      assert.strictEqual((yield* registry.get("two")).backend, "two")
      assert.deepStrictEqual(one.events, ["build", "close"], "what was half built is closed at once")
      const error = yield* Effect.flip(registry.get("one"))
      assert.deepInclude(error, { _tag: "LockBackendError", reason: "Unreachable" })
      up = true
      assert.strictEqual((yield* registry.get("one")).backend, "one")
      assert.strictEqual(yield* registry.get("one"), yield* registry.get("one"), "then it stays")
      yield* close
      assert.deepStrictEqual(one.events, ["build", "close", "build", "close", "build", "built", "close"])
    }))

  it.effect("closes at once what one that cannot be built is made of", () =>
    Effect.gen(function*() {
      const made = probe("made")
      const one = Layer.effect(Lock, Effect.andThen(Lock, unreachable("one"))).pipe(Layer.provide(made.layer))
      const { registry } = yield* inScope(LockRegistry.layer({ one }, { build: "lazy" }))
      yield* Effect.flip(registry.get("one"))
      assert.deepStrictEqual(made.events, ["build", "built", "close"])
    }))

  it.effect("gives one failure to all that wait for the same build", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void, LockBackendError>()
      const one = probe("one", Deferred.await(gate))
      const { registry } = yield* inScope(LockRegistry.layer({ one: one.layer }, { build: "lazy" }))
      const fibers = yield* Effect.forEach(
        [1, 2, 3],
        () => Effect.forkChild(Effect.flip(registry.get("one")), { startImmediately: true })
      )
      yield* Deferred.fail(gate, unreachable("one"))
      for (const error of yield* Fiber.joinAll(fibers)) assert.strictEqual(error._tag, "LockBackendError")
      assert.deepStrictEqual(one.events, ["build", "close"])
    }))

  it.effect("builds in the context of the registry, not of the first caller", () =>
    Effect.gen(function*() {
      const builtWith: Array<unknown> = []
      const one = Layer.effect(
        Lock,
        Effect.gen(function*() {
          builtWith.push(yield* LockConfig.LockDefaults)
          return yield* Lock
        })
      ).pipe(Layer.provide(MemoryLock.layer))
      const { registry } = yield* inScope(LockRegistry.layer({ one }, { build: "lazy" }))
      yield* Effect.provideService(registry.get("one"), LockConfig.LockDefaults, { ttl: 2 })
      assert.deepStrictEqual(builtWith, [{}])
    }))

  it.effect("keeps backends apart that are wrapped by the same layer, also from those of the program", () => {
    const wrapped = Layer.effect(Lock, Lock)
    const over = (name: string) => Layer.provide(wrapped, probe(name).layer)
    return Effect.gen(function*() {
      assert.strictEqual((yield* Lock).backend, "zero")
      assert.strictEqual((yield* LockRegistry.get("one")).backend, "one")
      assert.strictEqual((yield* LockRegistry.get("two")).backend, "two")
    }).pipe(
      Effect.provide(Layer.provideMerge(LockRegistry.layer({ one: over("one"), two: over("two") }), over("zero")))
    )
  })

  it.effect("asks for what its layers need", () => {
    class Needed extends Context.Service<Needed, string>()("Needed") {}
    const one = Layer.effect(Lock, Effect.andThen(Needed, Lock)).pipe(Layer.provide(MemoryLock.layer))
    const layer: Layer.Layer<LockRegistry.LockRegistry, never, Needed> = LockRegistry.layer({
      one,
      memory: MemoryLock.layer
    })
    const registry: Layer.Layer<LockRegistry.LockRegistry> = Layer.provide(layer, Layer.succeed(Needed, "it"))
    return Effect.asVoid(Effect.provide(LockRegistry.get("one"), registry))
  })
})

describe("a registry by configuration", () => {
  it.effect("builds exactly those that are enabled", () => {
    const [redis, etcd, own] = [backend("redis"), backend("etcd"), backend("my-own")]
    return Effect.gen(function*() {
      assert.deepStrictEqual(yield* LockRegistry.names, ["redis", "my-own"])
      assert.deepStrictEqual([redis.events, etcd.events, own.events], [["build", "built"], [], ["build", "built"]])
      const disabled = yield* Effect.flip(LockRegistry.get("etcd"))
      assert.deepInclude(disabled, { _tag: "LockNotFound", reason: "disabled", names: ["redis", "my-own"] })
      assert.include(disabled.message, "DLOCK_ETCD_ENABLED=true")
      const unknown = yield* Effect.flip(LockRegistry.get("mysql"))
      assert.deepInclude(unknown, { _tag: "LockNotFound", reason: "notPassed" })
      assert.include(unknown.message, "pass MysqlLock to LockRegistry.layerConfig")
      const foreign = yield* Effect.flip(LockRegistry.get("your-own"))
      assert.include(foreign.message, "pass its module to LockRegistry.layerConfig")
      assert.deepInclude(yield* Effect.flip(LockRegistry.get("zookeeper")), { reason: "unknown" })
    }).pipe(Effect.provide(
      LockRegistry.layerConfig([redis, etcd, own]).pipe(
        configured({
          DLOCK_REDIS_ENABLED: "true",
          DLOCK_MY_OWN_ENABLED: "1",
          DLOCK_MYSQL_ENABLED: "true",
          DLOCK_YOUR_OWN_ENABLED: "on"
        })
      )
    ))
  })

  it.effect("takes the namespaces of backends as they are", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* LockRegistry.names, ["memory"])
      assert.strictEqual((yield* LockRegistry.get("memory")).backend, "memory")
    }).pipe(Effect.provide(
      LockRegistry.layerConfig([MemoryLock]).pipe(configured({ DLOCK_MEMORY_ENABLED: "true" }))
    )))

  it.effect("builds nothing before it is asked when it is lazy", () => {
    const redis = backend("redis")
    return Effect.gen(function*() {
      assert.deepStrictEqual(redis.events, [])
      yield* LockRegistry.get("redis")
      assert.deepStrictEqual(redis.events, ["build", "built"])
    }).pipe(Effect.provide(
      LockRegistry.layerConfig([redis], { build: "lazy" }).pipe(configured({ DLOCK_REDIS_ENABLED: "true" }))
    ))
  })

  it.effect("says why one could not be built when that one is asked for", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(LockRegistry.get("redis"))
      assert.deepInclude(error, { _tag: "LockBackendError", backend: "redis", reason: "Unreachable" })
    }).pipe(Effect.provide(
      LockRegistry.layerConfig([{ name: "redis", layerConfig: () => probe("redis", unreachable("redis")).layer }]).pipe(
        configured({ DLOCK_REDIS_ENABLED: "true" })
      )
    )))

  it.effect("tells at the start everything that is wrong with the configuration of any of them", () =>
    Effect.gen(function*() {
      const declaration = Options.declare("redis", { db: Options.integer({ minimum: 0, description: "A number." }) })
      const redis = { ...backend("redis"), declaration }
      const error = yield* Layer.build(LockRegistry.layerConfig([redis, backend("etcd")])).pipe(
        Effect.scoped,
        Effect.provide(ConfigProvider.layer(environment({
          DLOCK_TTL: "long",
          DLOCK_REDIS_ENABLED: "true",
          DLOCK_REDIS_DB: "x",
          DLOCK_ETCD_ENABLED: "perhaps",
          DLOCK_MYSQL_PORT: "x"
        }))),
        Effect.flip
      )
      assert.strictEqual(error._tag, "ConfigError")
      for (const variable of ["DLOCK_TTL", "DLOCK_REDIS_DB", "DLOCK_ETCD_ENABLED"]) {
        assert.include(error.message, variable)
      }
      assert.notInclude(error.message, "DLOCK_MYSQL_PORT", "a backend that is not passed in does not matter")
      assert.deepStrictEqual(redis.events, [], "nothing is built then")
    }))
})
