/**
 * Configuration by the operator of the program: each backend's options and the defaults of every lock, from the
 * environment and from a YAML file.
 *
 * Each backend declares its options in its own package; their variables (`DLOCK_REDIS_ADDRS`, ...) are read from the
 * `ConfigProvider` of the context, which is the environment unless told otherwise. `layer` adds the file below the
 * environment, key by key, and checks all of it at once.
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
import type * as Options from "./backend/Options.ts"
import * as check from "./internal/config/check.ts"
import * as configFile from "./internal/config/file.ts"
import * as table from "./internal/config/table.ts"
import * as defaults from "./internal/options.ts"
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
export const LockDefaults: Context.Reference<Lock.Defaults> = defaults.LockDefaults

/**
 * Whether the backend of this name is enabled: `DLOCK_<NAME>_ENABLED`. Default: false.
 *
 * @category configs
 * @since 0.1.0
 */
export const enabled = (name: string): Config.Config<boolean> =>
  Config.map(table.enabled(name).config, ({ enabled }) => enabled === true)

const defaultRetryDelay = Duration.millis(100)

const retry = (times: number | undefined, delay: Duration.Duration = defaultRetryDelay) =>
  times === undefined ? Schedule.spaced(delay) : Schedule.upTo(Schedule.spaced(delay), { times })

/**
 * The defaults of every lock: `DLOCK_TTL`, `DLOCK_TIMEOUT`, `DLOCK_RETRY_TIMES`, `DLOCK_RETRY_DELAY`, `DLOCK_MAX_HOLD`,
 * `DLOCK_TURN` and `DLOCK_LINGER`. Either variable of the retry makes attempts take the place of the line.
 *
 * @category configs
 * @since 0.1.0
 */
export const lock: Config.Config<Lock.Options> = Config.map(
  table.lock.config,
  ({ retryDelay, retryTimes, ...options }) =>
    retryTimes === undefined && retryDelay === undefined
      ? options
      : { ...options, retry: retry(retryTimes, retryDelay) }
)

const overGiven = (configured: Lock.Defaults): Effect.Effect<Lock.Defaults> =>
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
 * A backend as the configuration sees it: the namespace of its package, as it is imported.
 *
 * @category models
 * @since 0.1.0
 */
export interface Backend {
  readonly name: string
  /** What it has to configure. Default: nothing but whether it is enabled. */
  readonly declaration?: Options.Declaration | undefined
}

/**
 * Locks over the backend that `make` makes of the configured options, with `LockDefaults` from the configuration too:
 * what the `layerConfig` of a backend's package is. A variable that is a near miss of one of the `declaration` fails the
 * layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerLock = <O, E, R>(
  config: Config.Config<O>,
  make: (options: O) => Effect.Effect<LockBackend["Service"], E, R>,
  declaration?: Options.Declaration
): Layer.Layer<Lock, E | Config.ConfigError, Exclude<R, Scope.Scope>> =>
  Layer.provide(Lock.layer, [
    Layer.effect(
      LockBackend,
      Effect.gen(function*() {
        if (declaration !== undefined) {
          yield* check.checkMisses(table.sectionsOf([{ name: declaration.name, declaration }]))
        }
        return yield* make(yield* config)
      })
    ),
    layerDefaults
  ])

/**
 * Puts a YAML file below the environment, key by key, and sets `LockDefaults`. The file is `file`, else the one that
 * `DLOCK_CONFIG` names, else `config.yaml`, else `config/config.yaml`; only the last two may be missing.
 *
 * What concerns core and the given backends is checked when the layer is built, also of backends that are not enabled;
 * a value of the file that a variable overrides is not looked at. A variable or a key that nothing reads fails the
 * layer where it is a near miss of a known name; of other variables a warning is written, if the backends are given.
 *
 * "The environment" is the `ConfigProvider` of the context. The file is read through `FileSystem`, so that core needs no
 * platform: provide `NodeFileSystem.layer`, or that of another one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: {
  /** The backends that are configured: the namespaces of their packages. */
  readonly backends?: ReadonlyArray<Backend> | undefined
  /** The path of the file, which then must exist. */
  readonly file?: string | undefined
  /** The mapping of the file that is read, and nothing else of it. Default: `dlock`, or all of a file without it. */
  readonly section?: string | undefined
} = {}): Layer.Layer<never, LockConfigError, FileSystem.FileSystem> =>
  Layer.effectContext(
    Effect.gen(function*() {
      const { backends, section } = options
      const sections = table.sectionsOf(backends ?? [])
      const environment = yield* ConfigProvider.ConfigProvider
      const file = yield* configFile.find(options.file, environment, { sections, section })
      const unread = yield* check.unread(sections, environment)
      const problems = [
        ...yield* check.check(sections, environment, file),
        ...check.misses(unread).map(({ problem, variable }) => ({ source: variable, problem }))
      ]
      if (problems.length > 0) return yield* new LockConfigError({ problems })
      if (backends !== undefined) yield* check.warn(unread)
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
