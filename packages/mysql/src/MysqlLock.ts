/**
 * Locks on MySQL 5.7.5 or newer and on MariaDB 10.0.2 or newer, by `GET_LOCK` and `RELEASE_LOCK`: other programs that
 * use the same names by these functions are excluded too. Nothing is written, unless fencing tokens are to come from a
 * table.
 *
 * @since 0.1.0
 */
import { Lock, LockBackend, LockConfig } from "@dlock/core"
import type { LockBackendError } from "@dlock/core"
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { Pool, SslOptions } from "mysql2"
import * as MysqlBackend from "./internal/MysqlBackend.ts"
import * as MysqlClient from "./internal/MysqlClient.ts"
import { backendError, name as backendName } from "./internal/MysqlError.ts"

/**
 * What a backend does with connections, whoever opens them.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions {
  /**
   * The most connections at a time: one for the locks that were free when they were asked for, one for each lock that is
   * waited for or was, one that watches the server meanwhile. Beyond it an attempt fails. At least 3. Default: 50.
   */
  readonly connectionLimit?: number | undefined
  /** The longest wait for one answer of the server, and never more than the ttl. Default: 5 seconds. */
  readonly commandTimeout?: Duration.Input | undefined
  /** Put before every key. Default: nothing. */
  readonly keyPrefix?: string | undefined
  /**
   * Where fencing tokens come from: `"uuid"` is the server's `UUID_SHORT()`, which needs nothing; `table` counts in a
   * row per key of that table, which is created if it is missing, and which replication carries to other servers.
   * Default: `"uuid"`.
   */
  readonly fencing?: "uuid" | { readonly table: string } | undefined
}

/**
 * How to reach the server. Every field may be left out.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends ClientOptions {
  /** The server. Default: `localhost`. */
  readonly host?: string | undefined
  /** Its port. Default: 3306. */
  readonly port?: number | undefined
  /** The user. Default: the server's anonymous user. */
  readonly username?: string | undefined
  /** The password. Default: none. */
  readonly password?: Redacted.Redacted | undefined
  /** The database, which only a fencing table needs. Default: none. */
  readonly database?: string | undefined
  /** Encrypts the connections: `true` checks the server's certificate and name; or the driver's options. Default: `false`. */
  readonly tls?: boolean | SslOptions | undefined
}

/**
 * The name of the backend in errors, spans and metrics.
 *
 * @category constructors
 * @since 0.1.0
 */
export const name: string = backendName

/**
 * A backend with connections of its own, which end with the scope. Fails within `commandTimeout` when the server can not
 * be reached, does not accept the credentials, or can not carry locks.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: Options = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const { database, host = "localhost", password, port = 3306, tls = false, username } = options
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    return yield* backendError("connect", "Options", `port has to be a whole number from 1 to 65535, and is ${port}`)
  }
  return yield* MysqlBackend.make(
    MysqlClient.fromOptions({ host, port, username, password, database, tls }),
    options
  )
})

/**
 * A backend over a pool of `mysql2` that the caller opened and will close (of `mysql2/promise`: its `pool`). It keeps
 * what it takes out of the pool: locks belong to connections. Such a connection does not come back; it is closed when it
 * is not needed any more, and the pool opens others in its place.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeClient = (
  pool: Pool,
  options: ClientOptions = {}
): Effect.Effect<LockBackend["Service"], LockBackendError, Scope.Scope> =>
  MysqlBackend.make(MysqlClient.fromPool(pool), options)

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
 * Locks on the server that the configuration names; by default `LockConfig.mysql`, that is `DLOCK_MYSQL_HOST` and so on.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options> = LockConfig.mysql
): Layer.Layer<Lock, LockBackendError | Config.ConfigError> => LockConfig.layerLock(Config.unwrap(config), make)

/**
 * The `LockBackend` alone, over a pool that the caller opened and will close.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackendClient = (
  pool: Pool,
  options: ClientOptions = {}
): Layer.Layer<LockBackend, LockBackendError> => Layer.effect(LockBackend, makeClient(pool, options))

/**
 * Locks over a pool that the caller opened and will close; see `makeClient`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (pool: Pool, options: ClientOptions = {}): Layer.Layer<Lock, LockBackendError> =>
  Layer.provide(Lock.layer, layerBackendClient(pool, options))
