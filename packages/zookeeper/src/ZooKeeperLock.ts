/**
 * Locks on ZooKeeper: ephemeral sequential nodes under one session, laid out as Apache Curator's `InterProcessMutex` has
 * them, so that both exclude each other.
 *
 * @since 0.1.0
 */
import { Options as Kit, type Secret } from "@dlock/core/backend"
import { Lock } from "@dlock/core/Lock"
import { LockBackend } from "@dlock/core/LockBackend"
import * as LockConfig from "@dlock/core/LockConfig"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as backend from "./internal/backend.ts"
import { isDriver } from "./internal/client.ts"
import { attach, open } from "./internal/connection.ts"
import { backend as backendName, errors } from "./internal/errors.ts"
import * as options from "./internal/options.ts"
import { acls } from "./internal/requests.ts"

/**
 * Where the servers are and how they are used. Every field may be left out.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The servers of one ensemble, each `host`, `host:port` or `[ipv6]:port`, as a list or as one text with commas. A path
   * behind the last is a chroot: it is put before the prefix. All addresses of a name are tried in turn. Default:
   * `["localhost:2181"]`.
   */
  readonly servers?: string | ReadonlyArray<string> | undefined
  /**
   * How long the servers keep the session, and so every lock, of a process that is silent. The servers have limits for
   * it, by default 2 and 20 of their ticks. It is the ttl of every lease. Default: 30 seconds.
   */
  readonly sessionTimeout?: Duration.Input | undefined
  /** The path under which every node is made; programs with the same one exclude each other. Default: `/locks`. */
  readonly prefix?: string | undefined
  /** Authenticates by digest, together with `password`. Default: none. */
  readonly username?: string | undefined
  /** Belongs to `username`; an effect is run at each connection, within the command timeout. Default: none. */
  readonly password?: Secret.Input | undefined
  /**
   * The rights of others to the nodes: all (`open`), none (`private`), or to read them (`readable`). The last two need a
   * username and a password. Default: `private` with credentials, else `open`.
   */
  readonly acl?: "open" | "private" | "readable" | undefined
  /** The longest wait for an answer, with connecting and repetitions; never longer than the session's timeout. Default: 5
   * seconds. */
  readonly commandTimeout?: Duration.Input | undefined
  /** The driver has no TLS: `true` is refused. Default: `false`. */
  readonly tls?: boolean | undefined
}

/**
 * The options that apply to a client of your own.
 *
 * @category models
 * @since 0.1.0
 */
export type ClientOptions = Pick<Options, "prefix" | "acl" | "commandTimeout">

/**
 * A client of `node-zookeeper-client`, made by its `createClient`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Client {
  /** Milliseconds, as negotiated. */
  readonly getSessionTimeout: () => number
  /** Eight bytes. */
  readonly getSessionId: () => Buffer
}

/**
 * The name of the backend in errors, spans and metrics.
 *
 * @category constructors
 * @since 0.1.0
 */
export const name = backendName

/**
 * The backend over a session of its own, which ends with the scope. Fails when no server answers within the command
 * timeout, or the credentials give no right to the prefix.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  given: Options = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const { acl, password, prefix, servers, sessionTimeout, tls, username, ...settings } = yield* options.declaration
    .parse(
      given
    )
  const problem = options.problemOf({ acl, password, username })
  if (tls) {
    return yield* Effect.fail(errors.unsupported("connect", { detail: "the driver has no TLS; set tls to false" }))
  }
  if (problem !== undefined) return yield* Effect.fail(errors.options("connect", { detail: problem }))
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const credentials = username === undefined || password === undefined ? undefined : { username, password }
  const { addresses, chroot } = servers
  const commandTimeout = Math.min(settings.commandTimeout, sessionTimeout)
  const connection = { servers: addresses, sessionTimeout, commandTimeout, credentials, fork }
  return yield* backend.make({
    open: (events, now) => open(connection, events, now),
    isGiven: false,
    sessionTimeout,
    commandTimeout,
    servers: addresses.map(Kit.formatAddress).join(", "),
    prefix: `${chroot}${prefix}`,
    acl: acls[acl ?? (credentials === undefined ? "open" : "private")]
  })
})

/**
 * The backend over a client that you made, connected, and will close. When its session expires, all leases are lost
 * and every verb fails: only you can make another client. Its nodes belong to the users that it authenticated as, if it
 * did.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeClient = Effect.fnUntraced(function*(
  driver: Client,
  given: ClientOptions = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const { acl, commandTimeout, prefix } = yield* options.clientOptions.parse(given)
  if (!isDriver(driver)) {
    const detail = "the client is not one of node-zookeeper-client 1.1"
    return yield* Effect.fail(errors.options("connect", { detail }))
  }
  const { credentials, sessionTimeout } = driver.connectionManager
  return yield* backend.make({
    open: (events, now) => attach(driver, events, now),
    isGiven: true,
    sessionTimeout,
    commandTimeout: Math.min(commandTimeout, sessionTimeout),
    servers: "the servers of the given client",
    prefix,
    acl: acls[acl ?? (credentials.length === 0 ? "open" : "private")]
  })
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
 * Locks on ZooKeeper.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Lock, LockBackendError> =>
  Layer.provide(Lock.layer, layerBackend(options))

/**
 * What can be configured: `DLOCK_ZOOKEEPER_SERVERS` and so on, or the mapping `zookeeper` of the file.
 *
 * @category configs
 * @since 0.1.0
 */
export const declaration: typeof options.declaration = options.declaration

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
 * The `LockBackend` alone, over a client that you made, connected, and will close; see `makeClient`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackendClient = (
  client: Client,
  options: ClientOptions = {}
): Layer.Layer<LockBackend, LockBackendError> => Layer.effect(LockBackend, makeClient(client, options))

/**
 * Locks over a client that the caller made and connected, and will close; see `makeClient`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (client: Client, options: ClientOptions = {}): Layer.Layer<Lock, LockBackendError> =>
  Layer.provide(Lock.layer, layerBackendClient(client, options))
