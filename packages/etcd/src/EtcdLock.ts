/**
 * Locks in etcd.
 *
 * @since 0.1.0
 */
import { Lock } from "@dlock/core/Lock"
import { LockBackend } from "@dlock/core/LockBackend"
import * as LockConfig from "@dlock/core/LockConfig"
import { LockBackendError } from "@dlock/core/LockError"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { Etcd3 } from "etcd3"
import type { EtcdClient } from "./internal/EtcdClient.ts"
import * as Client from "./internal/EtcdClient.ts"
import type { Connection } from "./internal/EtcdHosts.ts"
import * as EtcdKeys from "./internal/EtcdKeys.ts"
import * as EtcdLine from "./internal/EtcdLine.ts"
import * as EtcdSession from "./internal/EtcdSession.ts"

/**
 * Certificates and keys, as PEM text.
 *
 * @category models
 * @since 0.1.0
 */
export interface TlsOptions {
  /** The authorities to trust. */
  readonly rootCertificate: string
  /** The client's private key. Default: none. */
  readonly privateKey?: Redacted.Redacted<string> | undefined
  /** The client's certificate and what signed it. Default: none. */
  readonly certChain?: string | undefined
}

/**
 * How the backend works, whoever opened the client.
 *
 * @category models
 * @since 0.1.0
 */
export interface BackendOptions {
  /** How long one request may take, tries on other endpoints included. Default: 5 seconds. */
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
export interface Options extends BackendOptions {
  /** `host:port` of the members, of which any subset will do; `https://` before it means `tls`. Default: `localhost:2379`. */
  readonly endpoints?: ReadonlyArray<string> | undefined
  /** Default: no authentication. */
  readonly username?: string | undefined
  /** Default: empty. */
  readonly password?: Redacted.Redacted<string> | undefined
  /** `true`: trust the authorities that Node trusts. Default: `false`, unless the endpoints say `https://`. */
  readonly tls?: boolean | TlsOptions | undefined
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

const defaultTimeout = "5 seconds"

const wrong = (detail: string): LockBackendError =>
  new LockBackendError({ backend: name, operation: "connect", reason: "Options", detail })

/** A time limit in milliseconds. */
const limit = (option: string, input: Duration.Input = defaultTimeout): Effect.Effect<number, LockBackendError> => {
  const millis = Option.match(Duration.fromInput(input), { onNone: () => 0, onSome: Duration.toMillis })
  return millis > 0 && Number.isFinite(millis)
    ? Effect.succeed(millis)
    : Effect.fail(wrong(`the ${option} must be positive and finite`))
}

const check = (_key: string, ttl: Duration.Duration): string | undefined => {
  if (Duration.toMillis(ttl) < 1000) return "etcd counts leases in whole seconds: the ttl must be at least 1 second"
  if (Duration.toSeconds(ttl) > EtcdSession.longest) return `etcd grants no lease beyond ${EtcdSession.longest} seconds`
  return undefined
}

const makeBackend = Effect.fnUntraced(function*(client: EtcdClient, commandTimeout: number, options: BackendOptions) {
  const line = yield* EtcdLine.make(client, { root: EtcdKeys.root(options.prefix ?? ""), commandTimeout })
  const backend: LockBackend["Service"] = { name, tenure: "session", check, ...line }
  return backend
})

const pem = (text: string): Buffer => Buffer.from(text, "utf8")

const credentialsOf = ({ certChain, privateKey, rootCertificate }: TlsOptions): Connection["credentials"] => ({
  rootCertificate: pem(rootCertificate),
  ...(privateKey !== undefined && { privateKey: pem(Redacted.value(privateKey)) }),
  ...(certChain !== undefined && { certChain: pem(certChain) })
})

const connectionOf = (options: Options, authTimeout: number): Connection => {
  const { endpoints = ["localhost:2379"], password, tls = false, username } = options
  return {
    endpoints: endpoints.map((endpoint) =>
      tls === true && !endpoint.includes("://") ? `https://${endpoint}` : endpoint.replace(/\/$/, "")
    ),
    credentials: typeof tls === "object" ? credentialsOf(tls) : undefined,
    auth: username === undefined
      ? undefined
      : { username, password: password === undefined ? "" : Redacted.value(password) },
    authTimeout
  }
}

const endpointText = /^(https?:\/\/)?[^/\s]+:\d{1,5}$/

/**
 * The backend over a client of its own, which is closed with the scope. Fails when no endpoint answers within the
 * dial timeout, or refuses the credentials.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: Options = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const commandTimeout = yield* limit("command timeout", options.commandTimeout)
  const dialTimeout = yield* limit("dial timeout", options.dialTimeout)
  const connection = connectionOf(options, commandTimeout)
  if (connection.endpoints.length === 0) return yield* wrong("there must be an endpoint")
  const strange = connection.endpoints.find((endpoint) => !endpointText.test(endpoint))
  if (strange !== undefined) return yield* wrong(`an endpoint is host:port, not "${strange}"`)
  const client = yield* Client.open(connection)
  yield* client.probe({ total: dialTimeout })
  return yield* makeBackend(client, commandTimeout, options)
})

/**
 * The backend over a client that you opened, and will close.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeClient = Effect.fnUntraced(function*(
  client: Etcd3,
  options: BackendOptions = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const commandTimeout = yield* limit("command timeout", options.commandTimeout)
  const edge = yield* Client.of(client)
  yield* edge.probe({ total: commandTimeout })
  return yield* makeBackend(edge, commandTimeout, options)
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
 * Locks in etcd, as configured: by default as `DLOCK_ETCD_ENDPOINTS` and its siblings say, see `LockConfig`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options> = LockConfig.etcd
): Layer.Layer<Lock, LockBackendError | Config.ConfigError> => LockConfig.layerLock(Config.unwrap(config), make)

/**
 * The `LockBackend` alone, over a client that you opened, and will close.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackendClient = (
  client: Etcd3,
  options: BackendOptions = {}
): Layer.Layer<LockBackend, LockBackendError> => Layer.effect(LockBackend, makeClient(client, options))

/**
 * Locks in etcd, over a client that you opened, and will close.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (client: Etcd3, options: BackendOptions = {}): Layer.Layer<Lock, LockBackendError> =>
  Layer.provide(Lock.layer, layerBackendClient(client, options))
