/**
 * Locks on Redis 5 or newer, and on what speaks its protocol (Valkey), as one server, a Cluster, or a master that
 * sentinels watch: one plain key per lock, as in the Redis manual's recipe, with a line of those who wait, fencing
 * tokens, and hand-over from one owner straight to the next.
 *
 * @since 0.1.0
 */
import { Lock, LockBackend, LockBackendError, LockConfig } from "@dlock/core"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { Cluster, Redis } from "ioredis"
import type { ConnectionOptions } from "node:tls"
import * as RedisBackend from "./internal/RedisBackend.ts"
import { backendName } from "./internal/RedisCall.ts"
import * as RedisClient from "./internal/RedisClient.ts"
import type * as RedisDriver from "./internal/RedisDriver.ts"
import * as RedisTarget from "./internal/RedisTarget.ts"

/**
 * How many replicas must have a lock before it is given out, and how long they may take.
 *
 * @category models
 * @since 0.1.0
 */
export interface WaitReplicas {
  /** At least 1. */
  readonly count: number
  /** Default: 1 second. */
  readonly timeout?: Duration.Input | undefined
}

/**
 * What a backend does with a connection, whoever opened it.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions {
  /** Put before every key. Default: nothing. */
  readonly keyPrefix?: string | undefined
  /** The longest wait for one answer of the server, and never more than the ttl. Default: 5 seconds. */
  readonly commandTimeout?: Duration.Input | undefined
  /**
   * A lock is given out only when so many replicas have it too; otherwise it is given back, and the attempt fails. It
   * makes the loss of locks in a fail-over less likely, and does not exclude it: another replica may become the master.
   * Default: nothing is waited for.
   */
  readonly waitReplicas?: WaitReplicas | undefined
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
   * Addresses: `host`, `host:port` or `[ipv6]:port`. Exactly one in mode `single`. Default: `["localhost:6379"]`, for
   * sentinels `["localhost:26379"]`.
   */
  readonly addrs?: ReadonlyArray<string> | undefined
  /** The name under which the sentinels know the master. Needed in mode `sentinel`, and for nothing else. */
  readonly masterName?: string | undefined
  /** The user, on servers with an access control list. Default: the servers' `default` user. */
  readonly username?: string | undefined
  /** The password. Default: none. */
  readonly password?: Redacted.Redacted | undefined
  /** The user on the sentinels. Default: their `default` user. */
  readonly sentinelUsername?: string | undefined
  /** The password of the sentinels. Default: none. */
  readonly sentinelPassword?: Redacted.Redacted | undefined
  /** The number of the database; a cluster has only number 0. Default: 0. */
  readonly db?: number | undefined
  /** Encrypts every connection: `true`, or the options of `node:tls`. Default: `false`. */
  readonly tls?: boolean | ConnectionOptions | undefined
}

/**
 * The name of the backend in errors, spans and metrics.
 *
 * @category constructors
 * @since 0.1.0
 */
export const name = backendName

const badOptions = (detail: string) =>
  new LockBackendError({ backend: name, operation: "connect", reason: "Options", detail })

const durationOf = (name: string, input: Duration.Input): Effect.Effect<Duration.Duration, LockBackendError> => {
  const duration = Option.filter(
    Duration.fromInput(input),
    (duration) => Duration.isFinite(duration) && Duration.toMillis(duration) >= 1
  )
  return Effect.mapError(
    Effect.fromOption(duration),
    () => badOptions(`${name} has to be a duration of a millisecond or more`)
  )
}

const timeoutOf = ({ commandTimeout = "5 seconds" }: ClientOptions) => durationOf("commandTimeout", commandTimeout)

const demandOf = Effect.fnUntraced(function*({ waitReplicas }: ClientOptions) {
  if (waitReplicas === undefined) return undefined
  const { count, timeout = "1 second" } = waitReplicas
  if (!Number.isInteger(count) || count < 1) return yield* badOptions("waitReplicas.count has to be 1 or more")
  return { count, timeout: yield* durationOf("waitReplicas.timeout", timeout) }
})

const connectWith = Effect.fnUntraced(function*(
  driver: RedisDriver.Driver,
  own: boolean,
  options: ClientOptions,
  commandTimeout: Duration.Duration
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const waitReplicas = yield* demandOf(options)
  const client = yield* RedisClient.make(driver, { own, limitMillis: Duration.toMillis(commandTimeout) })
  return yield* RedisBackend.make(client, {
    isCluster: driver.isCluster,
    keyPrefix: options.keyPrefix ?? "",
    commandTimeout,
    waitReplicas
  })
})

/**
 * A backend with connections of its own, which end with the scope. Fails when the server can not be reached, does not
 * accept the credentials, or can not carry locks, within `commandTimeout`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: Options = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const commandTimeout = yield* timeoutOf(options)
  const { driver, watched } = yield* Effect.mapError(
    Effect.fromResult(RedisTarget.open(options, Duration.toMillis(commandTimeout))),
    badOptions
  )
  const backend = yield* connectWith(driver, true, options, commandTimeout)
  if (watched !== undefined) {
    yield* RedisClient.leaveOldMasters(driver, watched, Duration.toMillis(commandTimeout))
  }
  return backend
})

/**
 * A backend over a driver that the caller opened and will close. What is put before keys is the driver's `keyPrefix`,
 * then ours. For messages it opens another connection like it, which ends with the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeClient = Effect.fnUntraced(function*(
  client: Redis | Cluster,
  options: ClientOptions = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  return yield* connectWith(client, false, options, yield* timeoutOf(options))
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
 * Locks on the server that the configuration names, with the defaults that it sets. Default: `LockConfig.redis`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options> = LockConfig.redis
): Layer.Layer<Lock, LockBackendError | Config.ConfigError> => LockConfig.layerLock(Config.unwrap(config), make)

/**
 * The `LockBackend` alone, over a driver that the caller opened and will close.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackendClient = (
  client: Redis | Cluster,
  options: ClientOptions = {}
): Layer.Layer<LockBackend, LockBackendError> => Layer.effect(LockBackend, makeClient(client, options))

/**
 * Locks over a driver that the caller opened and will close.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (
  client: Redis | Cluster,
  options: ClientOptions = {}
): Layer.Layer<Lock, LockBackendError> => Layer.provide(Lock.layer, layerBackendClient(client, options))
