/**
 * Locks on a majority of N independent Redis servers (5 or newer), after the Redlock algorithm of the Redis manual: the
 * lock outlives the death of a minority of them, which a single server's replicas, copied to later, cannot promise.
 *
 * @since 0.1.0
 */
import { Lock, LockBackend, type LockBackendError, LockConfig } from "@dlock/core"
import { Errors, Options as Kit, type Secret, type Tls } from "@dlock/core/backend"
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Connection } from "./internal/client.ts"
import * as opening from "./internal/opening.ts"
import * as options from "./internal/options.ts"
import * as backend from "./internal/redlock/backend.ts"
import { backendName, type RedlockNode } from "./internal/redlock/node.ts"
import * as subscription from "./internal/subscription.ts"
import type { Client } from "./RedisLock.ts"

/**
 * What a backend does with connections, its own or given ones.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions {
  /** Stands before every key. Default: nothing. */
  readonly keyPrefix?: string | undefined
  /**
   * The longest wait for the answer of one server. It is waited out only where that answer could make the difference:
   * a request is decided as soon as a majority is. Default: a tenth of the ttl, at least 50 and at most 250
   * milliseconds.
   */
  readonly nodeTimeout?: Duration.Input | undefined
  /**
   * How long the backend tries to reach a majority, and never longer than the ttl. Default: 5 seconds.
   */
  readonly commandTimeout?: Duration.Input | undefined
}

/**
 * How to reach the servers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends ClientOptions {
  /**
   * The servers, each `host`, `host:port` or `[ipv6]:port`: independent masters that do not replicate one another. An
   * odd number is best, because four cannot lose more of them than three can. Required.
   */
  readonly nodes?: string | ReadonlyArray<string> | undefined
  /** The user, on servers with an access control list. Default: the server's `default` user. */
  readonly username?: string | undefined
  /** The password of all of them, or an effect that is run at each connect and gives one. Default: none. */
  readonly password?: Secret.Input | undefined
  /** The number of the database. Default: 0. */
  readonly db?: number | undefined
  /** Encrypts the connections: `true`, or certificates, which are read at each connect. Default: `false`. */
  readonly tls?: Tls.Input | undefined
}

/**
 * The name of the backend in errors, spans and metrics.
 *
 * @category constructors
 * @since 0.1.0
 */
export const name = backendName

/**
 * What can be configured: `DLOCK_REDLOCK_NODES` and so on, or the mapping `redlock` of the file.
 *
 * @category configs
 * @since 0.1.0
 */
export const declaration: typeof options.redlock = options.redlock

const refuse = (detail: string) => Errors.make(name).options("connect", { detail })

const nodeOf = (label: string, connection: Connection, keyPrefix: string) =>
  Effect.map(subscription.make(connection), (subscription): RedlockNode => ({
    label,
    connection,
    subscription,
    keyPrefix: connection.keyPrefix + keyPrefix,
    seemsUp: true,
    clockAhead: undefined
  }))

/**
 * A backend with connections of its own, which end with the scope. Fails when a majority of the servers is unreachable,
 * does not accept the credentials, or cannot carry locks, within `commandTimeout`; a minority may be away, and takes part
 * when it is back.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  given: Options
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const settings = yield* options.parseRedlock(given)
  const nodes = yield* Effect.forEach(settings.nodes, (address) =>
    Effect.flatMap(
      opening.openNode(name, address, settings, settings.commandTimeout),
      (connection) => nodeOf(Kit.formatAddress(address), connection, settings.keyPrefix)
    ))
  return yield* backend.make(nodes, settings)
})

/**
 * A backend over clients that the caller opened and will close, one for each server. What stands before keys is the
 * client's `keyPrefix`, then ours. For messages it opens a second connection like each, which ends with the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeClients = Effect.fnUntraced(function*(
  clients: ReadonlyArray<Client>,
  given: ClientOptions = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const settings = yield* options.parseRedlockClient(given)
  if (clients.length === 0) return yield* refuse("clients: expected at least one")
  if (new Set(clients).size < clients.length) return yield* refuse("clients: one is there twice, and has one vote")
  const nodes = yield* Effect.forEach(clients, (client, i) =>
    Effect.flatMap(
      opening.use(name, client, settings.commandTimeout),
      (connection) => nodeOf(connection.address() ?? `server ${i + 1}`, connection, settings.keyPrefix)
    ))
  return yield* backend.make(nodes, settings)
})

/**
 * The `LockBackend` alone, with connections of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackend = (options: Options): Layer.Layer<LockBackend, LockBackendError> =>
  Layer.effect(LockBackend, make(options))

/**
 * Locks on the servers that the options name.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Lock, LockBackendError> =>
  Layer.provide(Lock.layer, layerBackend(options))

/**
 * Locks on the servers that the configuration names, with the defaults that it sets. Default: `declaration.config`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options> = declaration.config
): Layer.Layer<Lock, LockBackendError | Config.ConfigError> =>
  LockConfig.layerLock(Config.unwrap(config), make, declaration)

/**
 * The `LockBackend` alone, over clients that the caller opened and will close.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackendClients = (
  clients: ReadonlyArray<Client>,
  options: ClientOptions = {}
): Layer.Layer<LockBackend, LockBackendError> => Layer.effect(LockBackend, makeClients(clients, options))

/**
 * Locks over clients that the caller opened and will close, one for each server.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClients = (
  clients: ReadonlyArray<Client>,
  options: ClientOptions = {}
): Layer.Layer<Lock, LockBackendError> => Layer.provide(Lock.layer, layerBackendClients(clients, options))
