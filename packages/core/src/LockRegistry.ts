/**
 * Several backends by name, so that a program can pick one at run time.
 *
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as check from "./internal/config/check.ts"
import * as table from "./internal/config/table.ts"
import * as registry from "./internal/registry.ts"
import { Lock } from "./Lock.ts"
import * as LockConfig from "./LockConfig.ts"
import { LockBackendError } from "./LockError.ts"

const list = (names: ReadonlyArray<string>) =>
  names.length === 0 ? "none" : names.map((name) => JSON.stringify(name)).join(", ")

// The module that a backend of ours is; where core has to tell what to pass.
const modules: { readonly [name in string]?: string } = {
  memory: "MemoryLock",
  redis: "RedisLock",
  redlock: "Redlock",
  etcd: "EtcdLock",
  mysql: "MysqlLock",
  zookeeper: "ZooKeeperLock",
  postgres: "PostgresLock"
}

/**
 * The registry has no backend of this name: it is `unknown`, the configuration has it `disabled`, or it is enabled and
 * was `notPassed` to `layerConfig`. `names` are those that the registry has.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockNotFound extends Schema.TaggedError<LockNotFound>()("LockNotFound", {
  backend: Schema.String,
  reason: Schema.Literals(["unknown", "disabled", "notPassed"]),
  names: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const name = JSON.stringify(this.backend)
    switch (this.reason) {
      case "unknown":
        return `The lock backend ${name} is not known; there are: ${list(this.names)}`
      case "disabled":
        return `The lock backend ${name} is disabled, ${table.enabledVariable(this.backend)}=true enables it; ` +
          `enabled are: ${list(this.names)}`
      case "notPassed":
        return `The lock backend ${name} is enabled, but the program does not have it: pass ` +
          `${modules[this.backend] ?? "its module"} to LockRegistry.layerConfig`
    }
  }
}

/**
 * Why a backend is unavailable: it is not there, its server is unreachable, or its configuration is wrong.
 *
 * @category errors
 * @since 0.1.0
 */
export type LockRegistryError = LockNotFound | LockBackendError | Config.ConfigError

/**
 * When the backends are built: all at the `start`, or each when it is first asked for (`lazy`).
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Default: `start`. */
  readonly build?: "start" | "lazy" | undefined
}

/**
 * What `layerConfig` takes: the namespace of a backend, as it is imported.
 *
 * @category models
 * @since 0.1.0
 */
export interface Backend<out R = unknown> extends LockConfig.Backend {
  readonly layerConfig: () => Layer.Layer<Lock, LockBackendError | Config.ConfigError, R>
}

/**
 * The backends by name.
 *
 * @category services
 * @since 0.1.0
 */
export class LockRegistry extends Context.Service<LockRegistry, {
  /** Those that there are, in the order in which they were given. */
  readonly names: ReadonlyArray<string>
  /** The `Lock` of this name, which is built if it is not there yet; a build that failed is tried again. */
  readonly get: (name: string) => Effect.Effect<Lock["Service"], LockRegistryError>
  /** Runs a program on the backend of this name. */
  readonly withBackend: (
    name: string
  ) => <A, E, R>(program: Effect.Effect<A, E, R>) => Effect.Effect<A, E | LockRegistryError, Exclude<R, Lock>>
  /**
   * What is wrong with each backend now, by its name; `undefined` where locks can be taken. One that is not there yet is
   * built, so one that could not be built tells why.
   */
  readonly ping: Effect.Effect<ReadonlyMap<string, LockRegistryError | undefined>>
}>()("@dlock/core/LockRegistry") {}

type LockLayer<R> = Layer.Layer<Lock, LockBackendError | Config.ConfigError, R>

const closedError = (backend: string) =>
  Effect.fail(
    new LockBackendError({
      backend,
      operation: "connect",
      reason: "Closed",
      detail: "the LockRegistry layer is closed"
    })
  )

const make = Effect.fnUntraced(function*<R>(
  layers: ReadonlyMap<string, LockLayer<R>>,
  reasonOf: (name: string) => Effect.Effect<LockNotFound["reason"]>,
  options: Options | undefined
): Effect.fn.Return<LockRegistry["Service"], never, R | Scope.Scope> {
  const names = [...layers.keys()]
  const lookup = yield* registry.make(layers)
  let closed = false
  yield* Effect.addFinalizer(() => Effect.sync(() => closed = true))
  const get = (name: string): Effect.Effect<Lock["Service"], LockRegistryError> =>
    Effect.flatMap(Effect.suspend(() => closed ? closedError(name) : lookup(name)), (lock) =>
      lock === undefined
        ? Effect.flatMap(reasonOf(name), (reason) => new LockNotFound({ backend: name, reason, names }))
        : Effect.succeed(lock))
  if (options?.build !== "lazy") {
    yield* Effect.forEach(
      names,
      (name) =>
        Effect.catch(
          get(name),
          ({ message }) => Effect.logWarning(`The lock backend "${name}" is unavailable: ${message}`)
        ),
      {
        concurrency: "unbounded",
        discard: true
      }
    )
  }
  const pingOne = (name: string) =>
    Effect.match(Effect.flatMap(get(name), (lock): Effect.Effect<void, LockRegistryError> => lock.ping), {
      onFailure: (error) => [name, error] as const,
      onSuccess: () => [name, undefined] as const
    })
  return LockRegistry.of({
    names,
    get,
    ping: Effect.map(Effect.forEach(names, pingOne, { concurrency: "unbounded" }), (answers) => new Map(answers)),
    withBackend: (name) => (program) => Effect.flatMap(get(name), (lock) => Effect.provideService(program, Lock, lock))
  })
})

/**
 * The given layers, by their names. Each is built once, and closed with the registry; one that cannot be built takes
 * no other down: `get` tells its error, and tries again.
 *
 * @category layers
 * @since 0.1.0
 */
export function layer<const L extends { readonly [name: string]: LockLayer<unknown> }>(
  locks: L,
  options?: Options
): Layer.Layer<LockRegistry, never, Layer.Services<L[keyof L]>>
export function layer<R>(
  locks: { readonly [name: string]: LockLayer<R> },
  options?: Options
): Layer.Layer<LockRegistry, never, R> {
  return Layer.effect(LockRegistry, make(new Map(Object.entries(locks)), () => Effect.succeed("unknown"), options))
}

/**
 * Those of the given backends that the configuration enables (`DLOCK_REDIS_ENABLED`, ...), by their names. Fails at
 * the start with everything that is wrong with the configuration of any of the given ones; a variable that is a near
 * miss of one of theirs is. Warns of other variables of ours that nothing reads.
 *
 * @category layers
 * @since 0.1.0
 */
export function layerConfig<const B extends ReadonlyArray<Backend>>(
  backends: B,
  options?: Options
): Layer.Layer<LockRegistry, Config.ConfigError, Layer.Services<ReturnType<B[number]["layerConfig"]>>>
export function layerConfig<R>(
  backends: ReadonlyArray<Backend<R>>,
  options?: Options
): Layer.Layer<LockRegistry, Config.ConfigError, R> {
  return Layer.effect(
    LockRegistry,
    Effect.gen(function*() {
      yield* check.warn(yield* check.checkEnvironment(table.sectionsOf(backends)))
      const provider = yield* ConfigProvider.ConfigProvider
      const isEnabled = (name: string) => LockConfig.enabled(name).parse(provider)
      const enabled = yield* Effect.filter(backends, ({ name }) => isEnabled(name))
      // A switch that is wrong is that of a backend that was not passed; the others were checked.
      const reasonOf = (name: string) =>
        Effect.map(Effect.orElseSucceed(isEnabled(name), () => false), (enabled) => {
          if (backends.some((backend) => backend.name === name)) return "disabled"
          return enabled ? "notPassed" : "unknown"
        })
      return yield* make(
        new Map(enabled.map((backend) => [backend.name, backend.layerConfig()])),
        reasonOf,
        options
      )
    })
  )
}

/**
 * The names of the backends that there are.
 *
 * @category combinators
 * @since 0.1.0
 */
export const names: Effect.Effect<ReadonlyArray<string>, never, LockRegistry> = LockRegistry.useSync(({ names }) =>
  names
)

/**
 * The `Lock` of this name, which is built if it is not there yet; a build that failed is tried again.
 *
 * @category combinators
 * @since 0.1.0
 */
export const get = (name: string): Effect.Effect<Lock["Service"], LockRegistryError, LockRegistry> =>
  LockRegistry.use((registry) => registry.get(name))

/**
 * Runs a program on the backend of this name: `program.pipe(LockRegistry.withBackend("redis"))`.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withBackend = (name: string) =>
<A, E, R>(
  program: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LockRegistryError, Exclude<R, Lock> | LockRegistry> =>
  LockRegistry.use((registry) => registry.withBackend(name)(program))

/**
 * What is wrong with each backend now, by its name; `undefined` where locks can be taken. All are asked at the same time. One
 * that could not be built is built anew, and tells why when that fails.
 *
 * @category combinators
 * @since 0.1.0
 */
export const ping: Effect.Effect<ReadonlyMap<string, LockRegistryError | undefined>, never, LockRegistry> = LockRegistry
  .use((registry) => registry.ping)
