/**
 * Locks on Redis 5 or newer, and on what speaks its protocol (Valkey), as one server, a Cluster, or a master that
 * sentinels watch: one plain key per lock, as in the Redis manual's recipe, with a line of waiters, fencing tokens,
 * and hand-over from one owner straight to the next.
 *
 * @since 0.1.0
 */
import { Lock, LockBackend, type LockBackendError, LockConfig } from "@dlock/core"
import type { Secret, Tls } from "@dlock/core/backend"
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import type * as Scope from "effect/Scope"
import * as backend from "./internal/backend.ts"
import * as opening from "./internal/opening.ts"
import * as options from "./internal/options.ts"
import { backendName } from "./internal/requests.ts"
import * as service from "./internal/service.ts"

/**
 * What a backend does with a connection, its own or a given one.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions {
  /** Stands before every key. Default: nothing. */
  readonly keyPrefix?: string | undefined
  /** The longest wait for an answer, with connecting and repetitions; never longer than the ttl. Default: 5 seconds. */
  readonly commandTimeout?: Duration.Input | undefined
}

/**
 * How to reach the server. Every field may be left out.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends ClientOptions {
  /**
   * What the addresses are: of one server (`single`), of some nodes of a Redis Cluster (`cluster`), or of the sentinels
   * that watch a master and its replicas (`sentinel`). Default: `single`.
   */
  readonly mode?: "single" | "cluster" | "sentinel" | undefined
  /**
   * Addresses: `host`, `host:port` or `[ipv6]:port`, as a list or as one text with commas. Exactly one in mode `single`.
   * Default: `localhost:6379`, for sentinels `localhost:26379`.
   */
  readonly addrs?: string | ReadonlyArray<string> | undefined
  /** The name under which the sentinels know the master. Needed in mode `sentinel`, and for nothing else. */
  readonly masterName?: string | undefined
  /** The user, on servers with an access control list. Default: the servers' `default` user. */
  readonly username?: string | undefined
  /** The password, or an effect that is run at each connect and gives one. Default: none. */
  readonly password?: Secret.Input | undefined
  /** The user on the sentinels. Default: their `default` user. */
  readonly sentinelUsername?: string | undefined
  /** The password of the sentinels. Default: none. */
  readonly sentinelPassword?: Secret.Input | undefined
  /** The number of the database; a cluster has only number 0. Default: 0. */
  readonly db?: number | undefined
  /** Encrypts the connections to the servers: `true`, or certificates, which are read at each connect. Default: `false`. */
  readonly tls?: Tls.Input | undefined
  /** The same for the connections to the sentinels. Default: as `tls`. */
  readonly sentinelTls?: Tls.Input | undefined
}

/**
 * What is used of an ioredis client, of version 5 or 6: a `Redis` or a `Cluster`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Client {
  readonly status: string
  readonly options: object
  readonly sendCommand: (command: never) => unknown
  readonly disconnect: () => void
}

/**
 * The name of the backend in errors, spans and metrics.
 *
 * @category constructors
 * @since 0.1.0
 */
export const name = backendName

/**
 * What can be configured: `DLOCK_REDIS_ADDRS` and so on, or the mapping `redis` of the file.
 *
 * @category configs
 * @since 0.1.0
 */
export const declaration: typeof options.redis = options.redis

/**
 * A backend with connections of its own, which end with the scope. Fails when the server is unreachable, does not accept
 * the credentials, or cannot carry locks, within `commandTimeout`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  given: Options = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const settings = yield* options.parse(given)
  return yield* backend.make(yield* opening.open(settings), settings)
})

/**
 * A backend over a client that the caller opened and will close. What stands before keys is the client's `keyPrefix`,
 * then ours. For messages it opens another connection like it, which ends with the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeClient = Effect.fnUntraced(function*(
  client: Client,
  given: ClientOptions = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const settings = yield* options.parseClient(given)
  return yield* backend.make(yield* opening.use(name, client, settings.commandTimeout), settings)
})

/**
 * The `LockBackend` alone, with connections of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackend = (options: Options = {}): Layer.Layer<LockBackend, LockBackendError> =>
  Layer.effect(LockBackend, make(options))

/**
 * Locks on the server that the options name.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Lock, LockBackendError> =>
  Layer.provide(Lock.layer, layerBackend(options))

/**
 * Locks on the server that the configuration names, with the defaults that it sets. Default: `declaration.config`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options> = declaration.config
): Layer.Layer<Lock, LockBackendError | Config.ConfigError> =>
  LockConfig.layerLock(Config.unwrap(config), make, declaration)

/**
 * The `LockBackend` alone, over a client that the caller opened and will close.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackendClient = (
  client: Client,
  options: ClientOptions = {}
): Layer.Layer<LockBackend, LockBackendError> => Layer.effect(LockBackend, makeClient(client, options))

/**
 * Locks over a client that the caller opened and will close.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (
  client: Client,
  options: ClientOptions = {}
): Layer.Layer<Lock, LockBackendError> => Layer.provide(Lock.layer, layerBackendClient(client, options))

/**
 * A backend over the `Redis` service of Effect (`effect/persistence/Redis`), whose layers for Node, Bun and Deno bring their
 * own driver. That driver connects and sends again by itself and does not tell, so a release is answered `unknown` where
 * it was not ours, and what a fail-over lost is noticed at the next renewal. For one server, not for a cluster.
 *
 * @stability unstable
 * @category constructors
 * @since 0.1.0
 */
export const makeRedis = Effect.fnUntraced(function*(
  given: ClientOptions = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope | Redis.Redis> {
  const settings = yield* options.parseClient(given)
  return yield* backend.make(yield* service.use(name, yield* Redis.Redis, settings.commandTimeout), settings)
})

/**
 * The `LockBackend` alone, over the `Redis` service of Effect.
 *
 * @stability unstable
 * @category layers
 * @since 0.1.0
 */
export const layerBackendRedis = (
  options: ClientOptions = {}
): Layer.Layer<LockBackend, LockBackendError, Redis.Redis> => Layer.effect(LockBackend, makeRedis(options))

/**
 * Locks over the `Redis` service of Effect, so that an application on Effect needs no second driver.
 *
 * @stability unstable
 * @category layers
 * @since 0.1.0
 */
export const layerRedis = (options: ClientOptions = {}): Layer.Layer<Lock, LockBackendError, Redis.Redis> =>
  Layer.provide(Lock.layer, layerBackendRedis(options))
