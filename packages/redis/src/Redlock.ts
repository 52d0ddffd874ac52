/**
 * Locks on a majority of N independent Redis servers (5 or newer), after the Redlock algorithm of the Redis manual: the
 * lock outlives the death of a minority of them, which a single server's replicas, copied to later, can not promise.
 *
 * @since 0.1.0
 */
import { Lock, LockBackend, LockBackendError, LockConfig } from "@dlock/core"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { Redis } from "ioredis"
import type { ConnectionOptions } from "node:tls"
import * as RedisAddress from "./internal/RedisAddress.ts"
import * as RedisClient from "./internal/RedisClient.ts"
import * as RedisDriver from "./internal/RedisDriver.ts"
import * as RedlockBackend from "./internal/RedlockBackend.ts"
import * as RedlockNode from "./internal/RedlockNode.ts"

/**
 * What a backend does with connections, whoever opened them.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions {
  /** Put before every key. Default: nothing. */
  readonly keyPrefix?: string | undefined
  /**
   * The longest wait for the answer of one server. It is waited out only where that answer could make the difference:
   * an attempt is decided as soon as a majority is. Default: a tenth of the ttl, at least 50 and at most 250
   * milliseconds.
   */
  readonly nodeTimeout?: Duration.Input | undefined
  /**
   * For how long a majority is tried to be reached, and never longer than the ttl. Default: 5 seconds.
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
   * odd number is best, for four can not lose more of them than three can.
   */
  readonly nodes?: ReadonlyArray<string> | undefined
  /** The user, on servers with an access control list. Default: the server's `default` user. */
  readonly username?: string | undefined
  /** The password of all of them. Default: none. */
  readonly password?: Redacted.Redacted | undefined
  /** The number of the database. Default: 0. */
  readonly db?: number | undefined
  /** Encrypts the connections: `true`, or the options of `node:tls`. Default: `false`. */
  readonly tls?: boolean | ConnectionOptions | undefined
}

/**
 * The name of the backend in errors, spans and metrics.
 *
 * @category constructors
 * @since 0.1.0
 */
export const name = RedlockNode.backendName

const defaultPort = 6379

const badOptions = (detail: string) =>
  new LockBackendError({ backend: name, operation: "connect", reason: "Options", detail })

const duration = (field: string, input: Duration.Input): Effect.Effect<Duration.Duration, LockBackendError> => {
  const duration = Option.filter(
    Duration.fromInput(input),
    (duration) => Duration.isFinite(duration) && Duration.toMillis(duration) >= 1
  )
  return Effect.mapError(
    Effect.fromOption(duration),
    () => badOptions(`${field} has to be a duration of a millisecond or more`)
  )
}

const limitsOf = Effect.fnUntraced(
  function*({ commandTimeout = "5 seconds", nodeTimeout }: ClientOptions) {
    const limits: RedlockBackend.Limits = {
      commandTimeout: yield* duration("commandTimeout", commandTimeout),
      nodeTimeout: nodeTimeout === undefined ? undefined : yield* duration("nodeTimeout", nodeTimeout)
    }
    return limits
  }
)

const addressesOf = Effect.fnUntraced(function*(nodes: ReadonlyArray<string>) {
  if (nodes.length === 0) return yield* badOptions("nodes has to name at least one server")
  const addresses = new Map<string, RedisAddress.Address>()
  for (const node of nodes) {
    const address = RedisAddress.parse(node, defaultPort)
    if (address === undefined) {
      return yield* badOptions(`"${node}" is no address; expected host, host:port or [ipv6]:port`)
    }
    const label = `${address.host.toLowerCase()}:${address.port}`
    if (addresses.has(label)) return yield* badOptions(`nodes names ${label} twice, and a server has one vote`)
    addresses.set(label, address)
  }
  return addresses
})

/**
 * A backend with connections of its own, which end with the scope. Fails when a majority of the servers can not be
 * reached, does not accept the credentials, or can not carry locks, within `commandTimeout`; a minority may be away, and
 * takes part when it is back.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: Options
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const limits = yield* limitsOf(options)
  const addresses = yield* addressesOf(options.nodes ?? [])
  const { db, keyPrefix = "", password, tls, username } = options
  const login = {
    username,
    password: password && Redacted.value(password),
    db,
    tls: tls === true ? {} : tls === false ? undefined : tls
  }
  const limitMillis = Duration.toMillis(limits.commandTimeout)
  const nodes: Array<RedlockNode.RedlockNode> = []
  for (const [label, address] of addresses) {
    const driver = RedisDriver.single(address, login, limitMillis)
    const client = yield* RedisClient.make(driver, { own: true, limitMillis })
    nodes.push(RedlockNode.make(label, client, keyPrefix))
  }
  return yield* RedlockBackend.make(nodes, limits)
})

/**
 * A backend over drivers that the caller opened and will close, one for each server. What is put before keys is the
 * driver's `keyPrefix`, then ours. For messages it opens a second connection like each, which ends with the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeClients = Effect.fnUntraced(function*(
  clients: ReadonlyArray<Redis>,
  options: ClientOptions = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const limits = yield* limitsOf(options)
  if (clients.length === 0) return yield* badOptions("there has to be at least one client")
  if (new Set(clients).size < clients.length) return yield* badOptions("a client is there twice, and has one vote")
  const limitMillis = Duration.toMillis(limits.commandTimeout)
  const nodes: Array<RedlockNode.RedlockNode> = []
  for (const driver of clients) {
    const { host = "localhost", port = defaultPort } = driver.options
    const client = yield* RedisClient.make(driver, { own: false, limitMillis })
    nodes.push(RedlockNode.make(`${host}:${port}`, client, options.keyPrefix ?? ""))
  }
  return yield* RedlockBackend.make(nodes, limits)
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
 * Locks on the servers that the configuration names.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options> = LockConfig.redlock
): Layer.Layer<Lock, LockBackendError | Config.ConfigError> => LockConfig.layerLock(Config.unwrap(config), make)

/**
 * The `LockBackend` alone, over drivers that the caller opened and will close.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackendClients = (
  clients: ReadonlyArray<Redis>,
  options: ClientOptions = {}
): Layer.Layer<LockBackend, LockBackendError> => Layer.effect(LockBackend, makeClients(clients, options))

/**
 * Locks over drivers that the caller opened and will close, one for each server.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClients = (
  clients: ReadonlyArray<Redis>,
  options: ClientOptions = {}
): Layer.Layer<Lock, LockBackendError> => Layer.provide(Lock.layer, layerBackendClients(clients, options))
