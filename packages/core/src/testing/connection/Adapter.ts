import type * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Options from "../../backend/Options.ts"
import type * as Secret from "../../backend/Secret.ts"
import type { Lock } from "../../Lock.ts"
import type { LockBackend } from "../../LockBackend.ts"
import type { LockBackendError } from "../../LockError.ts"

/**
 * Where a server, or what stands before it, is reached.
 *
 * @category models
 * @since 0.1.0
 */
export interface Place {
  readonly host: string
  readonly port: number
}

/**
 * A server that a case has for itself, and the faults that can be done to it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Server extends Place {
  /** The process is gone; its port is free. */
  readonly kill: Effect.Effect<unknown, unknown>
  /** Starts it again after `kill`, on the same port; returns when it answers. */
  readonly start: Effect.Effect<unknown, unknown>
  /** Connections stay open, nothing is answered. */
  readonly pause: Effect.Effect<unknown, unknown>
  /** Goes on after `pause`. */
  readonly resume: Effect.Effect<unknown, unknown>
}

/**
 * A TCP proxy before a server, and the faults that can be done to what flows through it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Road extends Place {
  /** Heals: delivers what was held back, and accepts connections. */
  readonly pass: Effect.Effect<void>
  /** Destroys every connection. New ones are accepted. */
  readonly cut: Effect.Effect<void>
  /** Destroys every connection, and refuses new ones until `pass`. */
  readonly refuse: Effect.Effect<void>
  /** Swallows the next that the server says, and destroys the connection on which it said it. */
  readonly dropNextReply: Effect.Effect<void>
  /** Holds back what goes to the server on the connections of now, until `pass`. */
  readonly freeze: Effect.Effect<void>
  /** Destroys the connections of now on the client's side only; what was held back is delivered by `pass`. */
  readonly strand: Effect.Effect<void>
  /** How many connections clients have open. */
  readonly connections: Effect.Effect<number>
}

/**
 * A server that wants a password.
 *
 * @category models
 * @since 0.1.0
 */
export interface Locked<O extends object> {
  readonly server: Place
  /** The right one. */
  readonly password: string
  /** Whether a new connection needs the password again; a token may outlive it. Default: yes. */
  readonly eachConnect?: boolean | undefined
  /** Options that lead to a place with this password, or with none. */
  readonly options: (place: Place, password: Secret.Input | undefined) => O
}

/**
 * A server that speaks TLS and nothing else, with a certificate of an authority that no client trusts by default.
 *
 * @category models
 * @since 0.1.0
 */
export interface Encrypted<O extends object> {
  readonly server: Place
  /** Options without TLS. */
  readonly plain: O
  /** Options that trust the authority, with a client's certificate if the server wants one. */
  readonly trusting: O
  /** `tls: true`. */
  readonly trustingNode: O
  /** Trusts the authority, and expects another name. */
  readonly expectingAnotherName: O
}

/**
 * A backend over a driver that the caller opened.
 *
 * @category models
 * @since 0.1.0
 */
export interface Given {
  readonly make: Effect.Effect<LockBackend["Service"], LockBackendError, Scope.Scope>
  /** Whether the driver still answers its owner. */
  readonly isOpen: Effect.Effect<boolean, unknown>
}

/**
 * What the suite needs to know of a backend. What is left out leaves its cases out.
 *
 * @category models
 * @since 0.1.0
 */
export interface Adapter<O extends object> {
  readonly declaration: Options.Declaration
  readonly make: (options: O) => Effect.Effect<LockBackend["Service"], LockBackendError, Scope.Scope>
  readonly layerConfig: () => Layer.Layer<Lock, LockBackendError | Config.ConfigError>
  /** Options that lead to a place, with `commandTimeout`. */
  readonly options: (place: Place) => O
  /** The variables that lead to a place. */
  readonly environment: (place: Place) => Record<string, string>
  /** What `options` set. A second makes a fast suite. */
  readonly commandTimeout: Duration.Input
  /** A ttl that outlasts any pause of a case. Default: 1 minute. */
  readonly ttl?: Duration.Input | undefined
  /** A server with nothing particular about it. */
  readonly server: Effect.Effect<Server, unknown, Scope.Scope>
  readonly road: (server: Place) => Effect.Effect<Road, unknown, Scope.Scope>
  readonly locked?: Effect.Effect<Locked<O>, unknown, Scope.Scope> | undefined
  readonly encrypted?: Effect.Effect<Encrypted<O>, unknown, Scope.Scope> | undefined
  /** Options of a user with the rights that the documentation asks for, and no other. */
  readonly leastRights?: Effect.Effect<O, unknown, Scope.Scope> | undefined
  /** Cases that this backend fails, by their names, each with the reason. A case that passes after all is told. */
  readonly known?: { readonly [name: string]: string } | undefined
  /** Drivers of the caller's own, with settings as odd as can be, each by a name. */
  readonly given?: { readonly [name: string]: (place: Place) => Effect.Effect<Given, unknown, Scope.Scope> } | undefined
}
