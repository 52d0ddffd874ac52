/**
 * The backends by name. Each is in a package of its own, which is loaded only when it is asked for.
 */
import { Lock, type LockBackendError, LockConfig, type LockRegistry } from "@dlock/core"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import type * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { CliExit, codes } from "./exit.ts"

type Backend = LockRegistry.Backend<never>

/** What the packages export, by the names of the backends. */
const loaders: Readonly<Record<string, { readonly package: string, readonly load: () => Promise<Backend> }>> = {
  redis: { package: "@dlock/redis", load: () => import("@dlock/redis").then(({ RedisLock }) => RedisLock) },
  redlock: { package: "@dlock/redis", load: () => import("@dlock/redis").then(({ Redlock }) => Redlock) },
  etcd: { package: "@dlock/etcd", load: () => import("@dlock/etcd").then(({ EtcdLock }) => EtcdLock) },
  mysql: { package: "@dlock/mysql", load: () => import("@dlock/mysql").then(({ MysqlLock }) => MysqlLock) },
  postgres: {
    package: "@dlock/postgres",
    load: () => import("@dlock/postgres").then(({ PostgresLock }) => PostgresLock)
  },
  zookeeper: {
    package: "@dlock/zookeeper",
    load: () => import("@dlock/zookeeper").then(({ ZooKeeperLock }) => ZooKeeperLock)
  }
}

/** The names of the backends. Memory excludes no other process, so it is none of them. */
export const names: ReadonlyArray<string> = Object.keys(loaders)

const load = (name: string): Effect.Effect<Backend, CliExit> => {
  const loader = loaders[name]
  if (loader === undefined) {
    return Effect.fail(
      new CliExit({ code: codes.usage, detail: `there is no backend "${name}"; choose one of ${names.join(", ")}` })
    )
  }
  return Effect.tryPromise({
    try: loader.load,
    catch: (cause) =>
      new CliExit({
        code: codes.config,
        detail: isMissing(loader.package, cause)
          ? `the backend "${name}" needs the package ${loader.package}: npm install ${loader.package}`
          : `the package ${loader.package} could not be loaded: ${String(cause)}`
      })
  })
}

/** The package itself is missing, and not one that it needs. */
const isMissing = (name: string, cause: unknown): boolean =>
  cause instanceof Error && "code" in cause && cause.code === "ERR_MODULE_NOT_FOUND" &&
  cause.message.includes(`'${name}'`)

/** The name of the backend that is enabled, when it is the only one. */
const enabled: Effect.Effect<string, CliExit> = Effect.gen(function*() {
  const provider = yield* ConfigProvider.ConfigProvider
  const found = yield* Effect.filter(names, (name) =>
    Effect.mapError(
      LockConfig.enabled(name).parse(provider),
      ({ message }) => new CliExit({ code: codes.config, detail: message })
    ))
  const [only] = found
  if (only !== undefined && found.length === 1) return only
  return yield* new CliExit({
    code: codes.config,
    detail: found.length === 0
      ? "no backend is enabled: name one with --backend, or set DLOCK_REDIS_ENABLED=true for example"
      : `more than one backend is enabled (${found.join(", ")}): name one with --backend`
  })
})

const configError = ({ message }: { readonly message: string }) => new CliExit({ code: codes.config, detail: message })

/** The environment over the file. The variables of a backend are checked when its name is known. */
const configured = (file: string | undefined, backends: ReadonlyArray<Backend> | undefined) =>
  LockConfig.layer({ file, backends }).pipe(
    Layer.provide(NodeFileSystem.layer),
    Layer.build,
    Effect.mapError(configError)
  )

const problem = (error: LockBackendError | Config.ConfigError): CliExit =>
  error._tag === "LockBackendError"
    ? new CliExit({ code: error.reason === "Options" ? codes.config : codes.unavailable, detail: error.message })
    : configError(error)

/** Locks over the backend of this name, or over the one that is enabled, as the environment and the file configure it. */
export const open = (
  name: string | undefined,
  file: string | undefined
): Effect.Effect<Lock["Service"], CliExit, Scope.Scope> =>
  Effect.gen(function*() {
    const chosen = name ?? (yield* Effect.provideContext(enabled, yield* configured(file, undefined)))
    const backend = yield* load(chosen)
    const context = yield* configured(file, [backend])
    const built = yield* Effect.mapError(Effect.provideContext(Layer.build(backend.layerConfig()), context), problem)
    return Context.get(built, Lock)
  })
