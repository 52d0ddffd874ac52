/**
 * Locks in PostgreSQL 12 or newer: a row per key with a time limit, a line of waiters, fencing tokens, hand-over
 * from one owner straight to the next, and fencing inside the application's own transactions that is exact. Through a
 * pooler in transaction mode too.
 *
 * @since 0.1.0
 */
import type { Lease, LockBackendError, LockLost } from "@dlock/core"
import { Lock, LockBackend, LockConfig } from "@dlock/core"
import type { Secret, Tls } from "@dlock/core/backend"
import { PgClient } from "@effect/sql-pg"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import * as backend from "./internal/backend.ts"
import * as client from "./internal/client.ts"
import { backendName } from "./internal/errors.ts"
import * as internalFence from "./internal/fence.ts"
import * as options from "./internal/options.ts"
import { create } from "./internal/schema.ts"

/**
 * What a backend does with a connection, whether it opened it or not.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions {
  /** The schema that holds the tables and functions. Default: `dlock`. */
  readonly schema?: string | undefined
  /** Whether to create the schema when the layer is built, unless it is there. Default: `true`. */
  readonly createSchema?: boolean | undefined
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
  /** `postgres://user:password@host:port/database?sslmode=require`. The fields below count more than what it holds. */
  readonly url?: Secret.Input | undefined
  /** The host, or the folder of a Unix socket. Default: `localhost`. */
  readonly host?: string | undefined
  /** The port. Default: 5432. */
  readonly port?: number | undefined
  /** The database. Default: the one that is named like the user. */
  readonly database?: string | undefined
  /** The user. Default: the user of the process. */
  readonly username?: string | undefined
  /** The password. Default: none. */
  readonly password?: Secret.Input | undefined
  /** Encrypts every connection: `true`, or certificates. Default: what the url says in `sslmode`, or `false`. */
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
 * Where `fence` finds the rows of leases. Every layer of this module provides it.
 *
 * @category services
 * @since 0.1.0
 */
export class Fencing extends Context.Service<Fencing, {
  readonly schema: string
  readonly keyPrefix: string
}>()("@dlock/postgres/PostgresLock/Fencing") {}

/**
 * What can be configured: `DLOCK_POSTGRES_URL` and so on, or the mapping `postgres` of the file.
 *
 * @category configs
 * @since 0.1.0
 */
export const declaration = options.declaration

/**
 * A backend with connections of its own, which end with the scope. Fails when the server is unreachable, does not accept
 * the credentials, or cannot carry locks, within `commandTimeout`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  input: Options = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope> {
  const settings = yield* options.declaration.parse(input)
  const driver = yield* options.driverOf(settings)
  return yield* backend.make(yield* client.make(driver, settings.commandTimeout), settings)
})

/**
 * A backend over the `PgClient` of the application, which stays open. For messages it opens another connection like its
 * own, which ends with the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeClient = Effect.fnUntraced(function*(
  input: ClientOptions = {}
): Effect.fn.Return<LockBackend["Service"], LockBackendError, Scope.Scope | PgClient.PgClient> {
  const settings = yield* options.clientOptions.parse(input)
  const driver = client.given(yield* PgClient.PgClient)
  return yield* backend.make(yield* client.make(driver, settings.commandTimeout), settings)
})

/** A layer that tells `fence` where the rows are. */
const withFencing = <A, E, R>(self: Layer.Layer<A, E, R>, options: ClientOptions): Layer.Layer<A | Fencing, E, R> =>
  Layer.merge(self, Layer.succeed(Fencing, fencingOf(options)))

const fencingOf = ({ keyPrefix = "", schema = "dlock" }: ClientOptions): Fencing["Service"] => ({ keyPrefix, schema })

/**
 * The `LockBackend` alone, with connections of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackend = (options: Options = {}): Layer.Layer<LockBackend | Fencing, LockBackendError> =>
  withFencing(Layer.effect(LockBackend, make(options)), options)

/**
 * Locks on the server that the options name.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Lock | Fencing, LockBackendError> =>
  withFencing(Layer.provide(Lock.layer, layerBackend(options)), options)

/**
 * Locks on the server that the configuration names, with the defaults that it sets. Default: `declaration.config`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Wrap<Options> = options.declaration.config
): Layer.Layer<Lock | Fencing, LockBackendError | Config.ConfigError> =>
  Layer.merge(
    LockConfig.layerLock(Config.unwrap(config), make, declaration),
    Layer.effect(Fencing, Effect.map(Config.unwrap(config), fencingOf))
  )

/**
 * The `LockBackend` alone, over the `PgClient` of the application, which stays open.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackendClient = (
  options: ClientOptions = {}
): Layer.Layer<LockBackend | Fencing, LockBackendError, PgClient.PgClient> =>
  withFencing(Layer.effect(LockBackend, makeClient(options)), options)

/**
 * Locks over the `PgClient` of the application, which stays open.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = (
  options: ClientOptions = {}
): Layer.Layer<Lock | Fencing, LockBackendError, PgClient.PgClient> =>
  withFencing(Layer.provide(Lock.layer, layerBackendClient(options)), options)

/**
 * Fences the transaction in which it runs: fails with `LockLost` if the key was granted to another owner, and keeps the
 * key from being granted until the transaction ends. Put it last, before the commit. It fails with `LockBackendError`
 * outside a transaction and for a lease of another backend.
 *
 * Exact per hold: leases that were passed on within one process are ordered by that process.
 *
 * @category combinators
 * @since 0.1.0
 */
export const fence = (
  lease: Lease
): Effect.Effect<void, LockLost | LockBackendError | SqlError, SqlClient.SqlClient | Fencing> =>
  Effect.gen(function*() {
    return yield* internalFence.fence(yield* SqlClient.SqlClient, yield* Fencing, lease)
  })

/**
 * The same as text for a CTE of the writing statement: a query that locks the row of the lease, and gives no row once the
 * lease is lost, so that a statement that selects from it writes nothing.
 *
 * @category combinators
 * @since 0.1.0
 */
export const fenceStatement = (
  lease: Lease
): Effect.Effect<
  Statement.Statement<{ readonly held: number }>,
  LockBackendError,
  SqlClient.SqlClient | Fencing
> =>
  Effect.gen(function*() {
    return yield* internalFence.statement(yield* SqlClient.SqlClient, yield* Fencing, lease)
  })

/**
 * The statement that creates the schema of this name, for use in migrations; `src/schema.sql` of this package is the
 * one for `dlock`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const schema = (name = "dlock"): string => create(name)
