/**
 * Locks on ZooKeeper: ephemeral sequential nodes under one session, laid out as Apache Curator's `InterProcessMutex` has
 * them, so that both exclude each other.
 *
 * @since 0.1.0
 */
import { Lock } from "@dlock/core/Lock"
import { LockBackend } from "@dlock/core/LockBackend"
import * as LockConfig from "@dlock/core/LockConfig"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as ZooKeeperClient from "./internal/ZooKeeperClient.ts"
import { isDriver } from "./internal/ZooKeeperDriver.ts"
import * as ZooKeeperError from "./internal/ZooKeeperError.ts"
import * as Line from "./internal/ZooKeeperLine.ts"
import * as Parents from "./internal/ZooKeeperParents.ts"
import * as Path from "./internal/ZooKeeperPath.ts"
import * as Request from "./internal/ZooKeeperRequest.ts"
import * as Session from "./internal/ZooKeeperSession.ts"
import * as Verb from "./internal/ZooKeeperVerb.ts"

/**
 * Where the servers are and how they are used. Every field may be left out.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The servers of one ensemble, each `host` or `host:port`. Default: `["localhost:2181"]`. */
  readonly servers?: ReadonlyArray<string> | undefined
  /**
   * How long the servers keep the session, and so every lock, of a process that is silent. The servers have limits for
   * it, by default 2 and 20 of their ticks. It is the ttl of every lease. Default: 30 seconds.
   */
  readonly sessionTimeout?: Duration.Input | undefined
  /** The path under which every node is made; programs with the same one exclude each other. Default: `/locks`. */
  readonly prefix?: string | undefined
  /** Authenticates by digest, together with `password`; then nobody else has any right to the nodes. Default: none. */
  readonly username?: string | undefined
  /** Belongs to `username`. Default: none. */
  readonly password?: Redacted.Redacted | undefined
  /** The longest wait for an answer, and for a connection. Default: 5 seconds. */
  readonly commandTimeout?: Duration.Input | undefined
  /** The driver has no TLS: `true` is refused. Default: `false`. */
  readonly tls?: boolean | undefined
}

/**
 * The options that make sense with a client of your own.
 *
 * @category models
 * @since 0.1.0
 */
export type ClientOptions = Pick<Options, "prefix" | "commandTimeout">

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
export const name = ZooKeeperError.backend

const durationOf = (input: Duration.Input | undefined, fallback: Duration.Input): Duration.Duration =>
  Duration.fromInputUnsafe(input ?? fallback)

const optionsError = (detail: string) => ZooKeeperError.failed("connect", "Options", detail)

/** The protocol counts milliseconds in 32 bits with a sign. */
const longestTimeout = 2 ** 31 - 1

const server = /^[^\s:/,]+(:\d{1,5})?$/

const digestOf = ({ password, username }: Options): string | undefined =>
  username === undefined || password === undefined ? undefined : `${username}:${Redacted.value(password)}`

const problemOf = (options: Options): string | undefined => {
  const { password, prefix, servers, username } = options
  const wrongServer = servers?.find((text) => !server.test(text))
  if (servers?.length === 0) return "there are no servers"
  if (wrongServer !== undefined) return `a server is host or host:port, not ${JSON.stringify(wrongServer)}`
  if ((username === undefined) !== (password === undefined)) return "a username needs a password, and vice versa"
  if (username === "" || username?.includes(":")) return "the username must not be empty, nor have a colon in it"
  const timeout = durationOf(options.sessionTimeout, "1 second")
  if (!Duration.isFinite(timeout) || Duration.toMillis(timeout) < 1 || Duration.toMillis(timeout) > longestTimeout) {
    return "the session timeout must be at least 1 millisecond and at most 24 days"
  }
  return prefix === undefined ? undefined : Path.prefixProblem(prefix)
}

interface Source extends Pick<Session.Settings, "open" | "isGiven" | "sessionTimeout"> {
  readonly acl: Request.Acl
  /** The servers, for people. */
  readonly servers: string
}

const makeBackend = Effect.fnUntraced(function*(
  source: Source,
  options: ClientOptions,
  clock: Clock.Clock
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const { prefix = "/locks" } = options
  const nowhere = Path.nowhere(prefix)
  const commandTimeout = durationOf(options.commandTimeout, "5 seconds")
  const session = yield* Effect.acquireRelease(
    Effect.sync(() => Session.make({ ...source, nowhere, commandTimeout }, clock)),
    (session) => session.close
  )
  const talk = Verb.make(session, { servers: source.servers, commandTimeout }, clock)
  yield* Effect.forkScoped(session.keep)
  const [reply] = yield* talk.run("connect", (verb) => talk.exchange(verb, () => [Request.remove(nowhere)]))
  if (reply?.code !== Request.codes.noNode) {
    return yield* Effect.fail(ZooKeeperError.refused("connect", reply?.code ?? Request.codes.ok))
  }
  const parents = yield* Effect.acquireRelease(
    Effect.sync(() => Parents.make(prefix, session, talk, clock)),
    (parents) => parents.clear
  )
  yield* Effect.forkScoped(parents.keep)
  return {
    name,
    tenure: "session",
    check: Path.keyProblem,
    ...Line.make(session, parents, talk, { prefix, nowhere, acl: source.acl })
  }
})

/**
 * The backend over a session of its own, which ends with the scope. Fails when no server answers within the command
 * timeout, or the credentials give no right to the prefix.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: Options = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const problem = problemOf(options)
  if (options.tls === true) {
    return yield* Effect.fail(ZooKeeperError.failed("connect", "Unsupported", "the driver has no TLS"))
  }
  if (problem !== undefined) return yield* Effect.fail(optionsError(problem))
  const clock = yield* Clock.Clock
  const { servers = ["localhost:2181"] } = options
  const sessionTimeout = durationOf(options.sessionTimeout, "30 seconds")
  const digest = digestOf(options)
  const settings: ZooKeeperClient.Settings = { servers, sessionTimeout: Duration.toMillis(sessionTimeout), digest }
  return yield* makeBackend(
    {
      open: (events) => ZooKeeperClient.open(settings, events, clock),
      isGiven: false,
      sessionTimeout,
      acl: digest === undefined ? Request.openAcl : Request.creatorAcl,
      servers: servers.join(", ")
    },
    options,
    clock
  )
})

/**
 * The backend over a client that you made, connected, and will close. When its session expires, all leases are lost
 * and every verb fails: only you can make another client. Its nodes belong to whoever it authenticated as, if it did.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeClient = Effect.fnUntraced(function*(
  client: Client,
  options: ClientOptions = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const problem = problemOf(options)
  if (problem !== undefined) return yield* Effect.fail(optionsError(problem))
  if (!isDriver(client)) {
    return yield* Effect.fail(optionsError("the client is not one of node-zookeeper-client"))
  }
  const clock = yield* Clock.Clock
  return yield* makeBackend(
    {
      open: (events) => ZooKeeperClient.attach(client, events, clock),
      isGiven: true,
      sessionTimeout: Duration.millis(client.connectionManager.sessionTimeout),
      acl: client.connectionManager.credentials.length === 0 ? Request.openAcl : Request.creatorAcl,
      servers: "the servers of the given client"
    },
    options,
    clock
  )
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
 * Locks on ZooKeeper, as configured: by default as `DLOCK_ZOOKEEPER_SERVERS` and its siblings say, see `LockConfig`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options> = LockConfig.zookeeper
): Layer.Layer<Lock, LockBackendError | Config.ConfigError> => LockConfig.layerLock(Config.unwrap(config), make)

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
 * Locks on ZooKeeper, over a client that you made, connected, and will close; see `makeClient`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (client: Client, options: ClientOptions = {}): Layer.Layer<Lock, LockBackendError> =>
  Layer.provide(Lock.layer, layerBackendClient(client, options))
