/**
 * Configuration by whoever operates the program: each backend's options and the defaults of every lock, from the
 * environment and from a YAML file.
 *
 * Each value is a `Config` of its own and reads the variables of its section (`DLOCK_REDIS_ADDRS`, ...) from the
 * `ConfigProvider` of the context, which is the environment unless told otherwise. `layer` adds the file below the
 * environment, key by key, and checks all of it at once. The README lists every name, type and default.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as check from "./internal/configCheck.ts"
import * as configFile from "./internal/configFile.ts"
import * as read from "./internal/configRead.ts"
import * as table from "./internal/configTable.ts"
import * as defaults from "./internal/lockDefaults.ts"
import { Lock } from "./Lock.ts"
import { LockBackend } from "./LockBackend.ts"

/**
 * The configuration is wrong. `problems` has all that is, each with where it stands: a variable of the environment, or
 * a file with the line or the path in it.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockConfigError extends Schema.TaggedError<LockConfigError>()("LockConfigError", {
  problems: Schema.Array(Schema.Struct({ source: Schema.String, problem: Schema.String }))
}) {
  override get message(): string {
    const lines = this.problems.map(({ problem, source }) => `  ${source}: ${problem}`)
    return ["The configuration of the locks is wrong:", ...lines].join("\n")
  }
}

/**
 * What a lock does where the call does not say it: `Lock.layer` reads it when it is built. Default: nothing is set.
 *
 * @category services
 * @since 0.1.0
 */
export const LockDefaults: Context.Reference<Lock.Options> = defaults.LockDefaults

const options = <A extends { readonly enabled?: boolean }>(
  section: table.Section<A>
): Config.Config<Omit<A, "enabled">> => Config.map(read.config(section), ({ enabled: _, ...options }) => options)

/**
 * Whether the backend of this name is enabled: `DLOCK_<NAME>_ENABLED`. Default: false.
 *
 * @category configs
 * @since 0.1.0
 */
export const enabled = (name: string): Config.Config<boolean> =>
  Config.map(read.config(table.anyBackend(name)), ({ enabled }) => enabled === true)

const defaultRetryDelay = Duration.millis(100)

const retry = (times: number | undefined, delay: Duration.Duration = defaultRetryDelay) =>
  times === undefined ? Schedule.spaced(delay) : Schedule.upTo(Schedule.spaced(delay), { times })

/**
 * The defaults of every lock: `DLOCK_TTL`, `DLOCK_TIMEOUT`, `DLOCK_RETRY_TIMES`, `DLOCK_RETRY_DELAY`, `DLOCK_MAX_HOLD`.
 * Either variable of the retry makes attempts take the place of the line.
 *
 * @category configs
 * @since 0.1.0
 */
export const lock: Config.Config<Lock.Options> = Config.map(
  read.config(table.lock),
  ({ retryDelay, retryTimes, ...options }) =>
    retryTimes === undefined && retryDelay === undefined
      ? options
      : { ...options, retry: retry(retryTimes, retryDelay) }
)

/**
 * The options of `RedisLock`: `DLOCK_REDIS_ADDRS`, ...
 *
 * @category configs
 * @since 0.1.0
 */
export const redis = Config.map(
  options(table.redis),
  ({ waitReplicas, waitTimeout, ...options }) =>
    waitReplicas === undefined ? options : { ...options, waitReplicas: { count: waitReplicas, timeout: waitTimeout } }
)

/**
 * The options of `Redlock`: `DLOCK_REDLOCK_NODES`, ...
 *
 * @category configs
 * @since 0.1.0
 */
export const redlock = options(table.redlock)

/**
 * The options of `EtcdLock`: `DLOCK_ETCD_ENDPOINTS`, ...
 *
 * @category configs
 * @since 0.1.0
 */
export const etcd = options(table.etcd)

/**
 * The options of `MysqlLock`: `DLOCK_MYSQL_HOST`, ...
 *
 * @category configs
 * @since 0.1.0
 */
export const mysql = Config.map(
  options(table.mysql),
  ({ fencingTable, ...options }) =>
    fencingTable === undefined ? options : { ...options, fencing: { table: fencingTable } }
)

/**
 * The options of `ZooKeeperLock`: `DLOCK_ZOOKEEPER_SERVERS`, ...
 *
 * @category configs
 * @since 0.1.0
 */
export const zookeeper = options(table.zookeeper)

const overGiven = (configured: Lock.Options): Effect.Effect<Lock.Options> =>
  Effect.map(LockDefaults, (given) => ({ ...given, ...configured }))

/**
 * Sets `LockDefaults` from the configuration, over those that the program has set. Needed by itself only with a backend's `layer`: `layerConfig` and
 * `LockConfig.layer` do it too.
 *
 * @category layers
 * @since 0.1.0
 */
// Read anew each time: parts of one program may have different configurations.
export const layerDefaults: Layer.Layer<never, Config.ConfigError> = Layer.fresh(
  Layer.effect(LockDefaults, Effect.flatMap(lock, overGiven))
)

/**
 * Locks over the backend that `make` makes of the configured options, with `LockDefaults` from the configuration too:
 * what the `layerConfig` of a backend's package is.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerLock = <O, E, R>(
  config: Config.Config<O>,
  make: (options: O) => Effect.Effect<LockBackend["Service"], E, R>
): Layer.Layer<Lock, E | Config.ConfigError, Exclude<R, Scope.Scope>> =>
  Layer.provide(Lock.layer, [
    Layer.effect(LockBackend, Effect.flatMap(config, make)),
    layerDefaults
  ])

/**
 * Puts a YAML file below the environment, key by key, and sets `LockDefaults`. The file is `file`, else the one that
 * `DLOCK_CONFIG` names, else `config.yaml`, else `config/config.yaml`; only the last two may be missing.
 *
 * All of the configuration is checked when the layer is built, also of backends that are not enabled; a value of the
 * file that a variable overrides is not looked at. "The environment" is the `ConfigProvider` of the context. The file
 * is read through `FileSystem`, so that core needs no platform: provide `NodeFileSystem.layer`, or that of another
 * one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: {
  /** The path of the file, which then must exist. */
  readonly file?: string | undefined
}): Layer.Layer<never, LockConfigError, FileSystem.FileSystem> =>
  Layer.effectContext(
    Effect.gen(function*() {
      const environment = yield* ConfigProvider.ConfigProvider
      const file = yield* configFile.find(options?.file, environment)
      const problems = yield* check.check(environment, file)
      if (problems.length > 0) return yield* new LockConfigError({ problems })
      const provider = check.merge(environment, file)
      return Context.make(ConfigProvider.ConfigProvider, provider).pipe(
        Context.add(LockDefaults, yield* Effect.flatMap(lock.parse(provider), overGiven))
      )
    }).pipe(
      Effect.catchTag(
        "ConfigError",
        ({ message }) => new LockConfigError({ problems: [{ source: "environment", problem: message }] })
      )
    )
  )
