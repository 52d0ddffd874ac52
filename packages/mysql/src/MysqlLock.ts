/**
 * Locks on MySQL 5.7.5 or newer and on MariaDB 10.2.4 or newer, by `GET_LOCK` and `RELEASE_LOCK`: other programs that
 * use the same names by these functions are excluded too. Nothing is written, unless fencing tokens are to come from a
 * table.
 *
 * @since 0.1.0
 */
import { Lock, LockBackend, LockConfig } from "@dlock/core"
import type { LockBackendError } from "@dlock/core"
import type { Secret, Tls } from "@dlock/core/backend"
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { Pool } from "mysql2"
import type { Pool as PromisePool } from "mysql2/promise"
import * as Backend from "./internal/backend.ts"
import * as Client from "./internal/client.ts"
import { name as backendName } from "./internal/errors.ts"
import * as options from "./internal/options.ts"

/**
 * What a backend does with connections, its own or a pool's.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions {
  /**
   * The most connections at a time: one for the locks that were free when they were asked for, and one for each lock that
   * is waited for or was; with a table of tokens one more. At the limit, requests wait for one of them. One more is opened
   * for a moment when another is silent while requests wait. At least 2, with a table 3. Default: 50.
   */
  readonly connectionLimit?: number | undefined
  /** The longest wait for an answer, with connecting and repetitions; never longer than the ttl. Default: 5 seconds. */
  readonly commandTimeout?: Duration.Input | undefined
  /** Stands before every key. Default: nothing. */
  readonly keyPrefix?: string | undefined
  /**
   * Where fencing tokens come from: `"uuid"` is the server's `UUID_SHORT()`, which needs nothing; `table` counts in a
   * row per key of that table, which is created if it is missing, and which replication carries to other servers.
   * Default: `"uuid"`.
   */
  readonly fencing?: "uuid" | { readonly table: string } | undefined
  /** Locks on a replica are allowed; they exclude only programs that ask the same replica. Default: `false`. */
  readonly allowReadOnly?: boolean | undefined
}

/**
 * How to reach the server. Every field may be left out.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends ClientOptions {
  /** `mysql://user:password@host:port/database`. Its user, password and database give way to the options of that name. */
  readonly url?: string | Redacted.Redacted | undefined
  /** The server. Default: `localhost`. */
  readonly host?: string | undefined
  /** Its port. Default: 3306. */
  readonly port?: number | undefined
  /** The Unix socket of the server, instead of a host and a port. */
  readonly socketPath?: string | undefined
  /** The user. Default: the server's anonymous user. */
  readonly username?: string | undefined
  /** The password, or an effect that is run at each connect and gives one. Default: none. */
  readonly password?: Secret.Input | undefined
  /** The database, which only a fencing table needs. Default: none. */
  readonly database?: string | undefined
  /** Encrypts the connections: `true`, or certificates, which are read at each connect. Default: `false`. */
  readonly tls?: Tls.Input | undefined
}

/**
 * The name of the backend in errors, spans and metrics.
 *
 * @category constructors
 * @since 0.1.0
 */
export const name: string = backendName

/**
 * What can be configured: `DLOCK_MYSQL_HOST` and so on, or the mapping `mysql` of the file.
 *
 * @category configs
 * @since 0.1.0
 */
export const declaration: typeof options.declaration = options.declaration

/**
 * A backend with connections of its own, which end with the scope. Fails within `commandTimeout` when the server is
 * unreachable, does not accept the credentials, or cannot carry locks.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  given: Options = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const { settings, target } = yield* options.parse(given)
  return yield* Backend.make(Client.fromTarget(target), settings)
})

/**
 * A backend over a pool of `mysql2` or `mysql2/promise` that the caller opened and will close. It keeps what it takes out
 * of the pool: locks belong to connections. Such a connection does not come back; it is closed when it is not needed any
 * more, and the pool opens others in its place.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeClient = (
  pool: Pool | PromisePool,
  given: ClientOptions = {}
): Effect.Effect<LockBackend["Service"], LockBackendError, Scope.Scope> =>
  Effect.flatMap(options.parseClient(given), (settings) => Backend.make(Client.fromPool(pool), settings))

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
 * The `LockBackend` alone, over a pool that the caller opened and will close.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackendClient = (
  pool: Pool | PromisePool,
  options: ClientOptions = {}
): Layer.Layer<LockBackend, LockBackendError> => Layer.effect(LockBackend, makeClient(pool, options))

/**
 * Locks over a pool that the caller opened and will close; see `makeClient`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (
  pool: Pool | PromisePool,
  options: ClientOptions = {}
): Layer.Layer<Lock, LockBackendError> => Layer.provide(Lock.layer, layerBackendClient(pool, options))
