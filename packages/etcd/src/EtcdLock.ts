/**
 * Locks in etcd.
 *
 * @since 0.1.0
 */
import type { Secret, Tls } from "@dlock/core/backend"
import { Lock } from "@dlock/core/Lock"
import { LockBackend } from "@dlock/core/LockBackend"
import * as LockConfig from "@dlock/core/LockConfig"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Etcd3 } from "etcd3"
import * as backend from "./internal/backend.ts"
import type { EtcdClient } from "./internal/client.ts"
import * as client from "./internal/client.ts"
import { etcd } from "./internal/errors.ts"
import * as names from "./internal/names.ts"
import * as options from "./internal/options.ts"
import * as session from "./internal/session.ts"

/**
 * How the backend works over any client.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions {
  /** The longest wait for an answer, with connecting and repetitions; never longer than the ttl. Default: 5 seconds. */
  readonly commandTimeout?: Duration.Input | undefined
  /**
   * What all keys begin with; a `/` is put after it. Default: none, so that the lock `k` is the one that
   * `etcdctl lock k` takes.
   */
  readonly prefix?: string | undefined
}

/**
 * How to reach etcd.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends ClientOptions {
  /**
   * `host:port` of the members, as a list or as one text with commas, of which any subset will do; `https://` before
   * one means `tls` for all, so `http://` may not stand before another. Default: `localhost:2379`.
   */
  readonly endpoints?: string | ReadonlyArray<string> | undefined
  /** The user. It may be set before authentication is enabled on the server. Default: no authentication. */
  readonly username?: string | undefined
  /** The password of the user, needs `username`; an effect is run at each login. Default: empty. */
  readonly password?: Secret.Input | undefined
  /**
   * `true`: trust the authorities that Node trusts. Certificates are PEM texts or paths of files, and are read at each
   * connect. Default: `false`, unless the endpoints say `https://`.
   */
  readonly tls?: Tls.Input | undefined
  /** How long building the layer tries to reach etcd. Default: 5 seconds. */
  readonly dialTimeout?: Duration.Input | undefined
}

/**
 * The name of the backend in errors, spans and metrics.
 *
 * @category constructors
 * @since 0.1.0
 */
export const name = "etcd"

/**
 * What can be configured: `DLOCK_ETCD_ENDPOINTS` and so on, or the mapping `etcd` of the file.
 *
 * @category configs
 * @since 0.1.0
 */
export const declaration = options.declaration

const check = (_key: string, ttl: number): string | undefined => {
  if (ttl < 1000) return "etcd counts leases in whole seconds: the ttl must be at least 1 second"
  if (ttl / 1000 > session.longest) return `etcd grants no lease beyond ${session.longest} seconds`
  return undefined
}

const makeBackend = Effect.fnUntraced(function*(
  client: EtcdClient,
  { commandTimeout, prefix }: { readonly commandTimeout: number, readonly prefix: string }
) {
  yield* Effect.forkScoped(session.warnIfOld(client, commandTimeout))
  const verbs = yield* backend.make(client, { root: names.root(prefix), commandTimeout })
  const service: LockBackend["Service"] = { name, freedBy: "session", tellsWanted: true, check, ...verbs }
  return service
})

/**
 * The backend over a client of its own, which is closed with the scope. Fails when no endpoint answers within the
 * dial timeout, or refuses the credentials.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  given: Options = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const settings = yield* options.declaration.parse(given)
  const problem = options.problemOf(settings)
  if (problem !== undefined) return yield* Effect.fail(etcd.options("connect", { detail: problem }))
  const own = yield* client.open(options.connectionOf(settings))
  yield* own.probe({ total: settings.dialTimeout })
  return yield* makeBackend(own, settings)
})

/**
 * The backend over a client that you opened, and will close.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeClient = Effect.fnUntraced(function*(
  driver: Etcd3,
  given: ClientOptions = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const settings = yield* options.clientOptions.parse(given)
  const edge = yield* client.of(driver)
  yield* edge.probe({ total: settings.commandTimeout })
  return yield* makeBackend(edge, settings)
})

/**
 * The `LockBackend` alone.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackend = (options: Options = {}): Layer.Layer<LockBackend, LockBackendError> =>
  Layer.effect(LockBackend, make(options))

/**
 * Locks in etcd.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Lock, LockBackendError> =>
  Layer.provide(Lock.layer, layerBackend(options))

/**
 * Locks on the servers that the configuration names, with the defaults that it sets. Default: `declaration.config`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options> = options.declaration.config
): Layer.Layer<Lock, LockBackendError | Config.ConfigError> =>
  LockConfig.layerLock(Config.unwrap(config), make, declaration)

/**
 * The `LockBackend` alone, over a client that you opened, and will close.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackendClient = (
  client: Etcd3,
  options: ClientOptions = {}
): Layer.Layer<LockBackend, LockBackendError> => Layer.effect(LockBackend, makeClient(client, options))

/**
 * Locks over a client that the caller opened and will close.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (client: Etcd3, options: ClientOptions = {}): Layer.Layer<Lock, LockBackendError> =>
  Layer.provide(Lock.layer, layerBackendClient(client, options))
