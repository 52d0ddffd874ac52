/**
 * Several backends by name, so that a program can pick one at run time.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as read from "./internal/configRead.ts"
import * as table from "./internal/configTable.ts"
import * as registry from "./internal/registry.ts"
import { Lock } from "./Lock.ts"
import * as LockConfig from "./LockConfig.ts"
import { LockBackendError } from "./LockError.ts"

const list = (names: ReadonlyArray<string>) =>
  names.length === 0 ? "none" : names.map((name) => JSON.stringify(name)).join(", ")

/**
 * There is no backend of this name in the registry: it is `unknown`, or the configuration has it `disabled`. `names`
 * are those that there are.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockNotFound extends Schema.TaggedError<LockNotFound>()("LockNotFound", {
  name: Schema.String,
  reason: Schema.Literals(["unknown", "disabled"]),
  names: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return this.reason === "unknown"
      ? `The lock backend ${JSON.stringify(this.name)} is not known; there are: ${list(this.names)}`
      : `The lock backend ${JSON.stringify(this.name)} is disabled, ${
        table.enabledVariable(this.name)
      }=true enables it; ` +
        `enabled are: ${list(this.names)}`
  }
}

/**
 * Why a backend can not be had: it is not there, its server can not be reached, or its configuration is wrong.
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
export interface Backend<out R = unknown> {
  readonly name: string
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
}>()("@dlock/core/LockRegistry") {}

type LockLayer<R> = Layer.Layer<Lock, LockBackendError | Config.ConfigError, R>

const closedError = (backend: string) =>
  Effect.fail(
    new LockBackendError({
      backend,
      operation: "connect",
      reason: "Unreachable",
      detail: "the LockRegistry layer is closed"
    })
  )

const make = Effect.fnUntraced(function*<R>(
  layers: ReadonlyMap<string, LockLayer<R>>,
  disabled: ReadonlySet<string>,
  options: Options | undefined
): Effect.fn.Return<LockRegistry["Service"], never, R | Scope.Scope> {
  const names = [...layers.keys()]
  const lookup = yield* registry.make(layers)
  let closed = false
  yield* Effect.addFinalizer(() => Effect.sync(() => closed = true))
  const get = (name: string): Effect.Effect<Lock["Service"], LockRegistryError> =>
    Effect.flatMap(Effect.suspend(() => closed ? closedError(name) : lookup(name)), (lock) =>
      lock === undefined
        ? new LockNotFound({ name, reason: disabled.has(name) ? "disabled" : "unknown", names })
        : Effect.succeed(lock))
  if (options?.build !== "lazy") {
    yield* Effect.forEach(
      names,
      (name) =>
        Effect.catch(
          get(name),
          ({ message }) => Effect.logWarning(`The lock backend "${name}" is not to be had now: ${message}`)
        ),
      {
        concurrency: "unbounded",
        discard: true
      }
    )
  }
  return LockRegistry.of({
    names,
    get,
    withBackend: (name) => (program) => Effect.flatMap(get(name), (lock) => Effect.provideService(program, Lock, lock))
  })
})

/**
 * The given layers, by their names. Each is built once, and closed with the registry; one that can not be built takes
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
  return Layer.effect(LockRegistry, make(new Map(Object.entries(locks)), new Set(), options))
}

/**
 * Those of the given backends that the configuration enables (`DLOCK_REDIS_ENABLED`, ...), by their names. Fails at
 * the start if the configuration of any of the given ones is wrong, with all that is.
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
      yield* read.check(table.sectionsOf(backends.map(({ name }) => name)))
      const switches = yield* Config.all(backends.map(({ name }) => LockConfig.enabled(name)))
      const enabled = backends.filter((_, index) => switches[index])
      const disabled = backends.filter((_, index) => !switches[index])
      return yield* make(
        new Map(enabled.map((backend) => [backend.name, backend.layerConfig()])),
        new Set(disabled.map(({ name }) => name)),
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
