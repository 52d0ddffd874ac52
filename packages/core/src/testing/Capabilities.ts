import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { LockBackend, LockRequest } from "../LockBackend.ts"
import type { LockBackendError } from "../LockError.ts"

/**
 * A third client of the store, whose death a case can bring about.
 *
 * @category models
 * @since 0.1.0
 */
export interface MortalClient {
  readonly client: LockBackend["Service"]
  /**
   * From now on nothing that this client sends arrives and nothing reaches it: its process died, or its network did.
   * The client itself lives on and is asked again; the server may or may not see its connections close.
   */
  readonly cut: Effect.Effect<void>
}

/**
 * A third client of the store, whose grants can be ended behind its back.
 *
 * @category models
 * @since 0.1.0
 */
export interface RevocableClient {
  readonly client: LockBackend["Service"]
  /**
   * Ends the grant of a request on the server, not by `LockBackend.revoke`: deletes its key, expires its session, kills
   * its connection. Other grants of this client may end with it.
   */
  readonly revoke: (request: LockRequest) => Effect.Effect<unknown, LockBackendError>
}

/**
 * A third client of the store, whose messages can be made to arrive late.
 *
 * @category models
 * @since 0.1.0
 */
export interface LateClient {
  readonly client: LockBackend["Service"]
  /** Holds back what this client sends over the connections that are open now. Later connections are not concerned. */
  readonly holdBack: Effect.Effect<void>
  /** Lets this client see those connections break. What was sent over them is still on its way. */
  readonly breakOff: Effect.Effect<void>
  /** Lets what was held back arrive, after everything that was sent over other connections. */
  readonly deliver: Effect.Effect<void>
}

/**
 * A third client of the store, whose requests are counted.
 *
 * @category models
 * @since 0.1.0
 */
export interface CountedClient {
  readonly client: LockBackend["Service"]
  /** How many requests this client has sent so far, heartbeats included. */
  readonly requests: Effect.Effect<number>
}

/**
 * A third client, whose server can be put into a state and back.
 *
 * @category models
 * @since 0.1.0
 */
export interface DisturbedClient {
  readonly client: LockBackend["Service"]
  readonly begin: Effect.Effect<void>
  readonly end: Effect.Effect<void>
}

/**
 * What `LockBackend.inspect` tells.
 *
 * @category models
 * @since 0.1.0
 */
export interface Inspects {
  /** It tells the owner of the holder. */
  readonly owner: boolean
  /** It tells the greatest fencing token that was given to the holder. */
  readonly token: boolean
  /** It tells how long the grant is still good for by the server's clock. */
  readonly remaining: boolean
  /** It tells the owners in line, or only how many they are, or nothing, because the server has no line. */
  readonly waiting: "owners" | "number" | "none"
}

/**
 * What a backend can do, as data: the suite adapts to these values and to nothing else.
 *
 * @category models
 * @since 0.1.0
 */
export interface Capabilities<R = never> {
  /** `test`: the suite drives a `TestClock`. `live`: a real server, real time, cases run concurrently. */
  readonly clock: "test" | "live"
  /** As in `LockBackend`. Cases that let a grant end by not renewing it are for `ttl` only. */
  readonly freedBy: "ttl" | "session"
  /** `request`: a grant lasts about as long as was asked for. `session`: the request's ttl does not apply. */
  readonly ttl: "request" | "session"
  /**
   * The ttl of grants that a case lets end, or keeps alive by renewing every third of it. The smallest that the backend
   * can do makes the fastest suite; with real time, not so small that a busy machine renews too late.
   */
  readonly minTtl: Duration.Input
  /** How much later than the ttl the server may free the key of a dead holder. Default: 0. */
  readonly granularity?: Duration.Input | undefined
  /** How long a waiter that died may hold up those behind it (law 6). Default: `minTtl` and `granularity`. */
  readonly deadWaiterDelay?: Duration.Input | undefined
  /** How long a verb may take when the server is unreachable (law 10). Default: 5 seconds. */
  readonly commandTimeout?: Duration.Input | undefined
  /** The line is strictly first come, first served, and `tryAcquire` does not overtake it. */
  readonly fifo: boolean
  /** `onLost` is called when a grant is lost (law 9). */
  readonly pushesLoss: boolean
  /** As in `LockBackend`: `onWanted` is called for a held key (law 9). Default: `false`. */
  readonly tellsWanted?: boolean | undefined
  /** A grant of a key that was never held carries spare tokens when the request asks for some (law 7). Default: `false`. */
  readonly reserves?: boolean | undefined
  /** A renewal that asks for `spare` tokens is answered with tokens (law 7). Default: `false`. */
  readonly renewsTokens?: boolean | undefined
  /**
   * A copy of a request object makes the backend send the same message again, as a driver does that resends by itself
   * (law 2). Default: `false`, for drivers that never send twice.
   */
  readonly resends?: boolean | undefined
  /** What `inspect` tells. Default: nothing, it fails with `Unsupported`. */
  readonly inspects?: Inspects | undefined
  /** `revoke` ends a hold. Default: `false`, it fails with `Unsupported`. */
  readonly revokes?: boolean | undefined
  /** Keys that `check` refuses. Every other key of 1 to 512 characters must be a lock of its own. Default: none. */
  readonly refuses?: ((key: string) => boolean) | undefined
  /**
   * The names that the backend uses on the server beside the key itself: each is a key that some application may use,
   * and must be a lock of its own (law 11). Default: none.
   */
  readonly companions?: ((key: string) => ReadonlyArray<string>) | undefined
  /** How many requests stand in line at once in the cases under load. Default: 100. */
  readonly contenders?: number | undefined
  /** How many requests stand in line for a key, as the server sees it; the holder may be counted or not. */
  readonly inLine?: ((key: string) => Effect.Effect<number, unknown, R>) | undefined
  /** Without `inLine`: the time after which an `acquire` surely stands in line. Default: 100 milliseconds. */
  readonly settle?: Duration.Input | undefined
  /**
   * How many requests a second one client sends at most while some of its requests wait for one key and nothing changes,
   * heartbeats included (law 10). Default: 10.
   */
  readonly requestsPerSecond?: number | undefined
  /** A new client that can be cut off, for laws 6, 8 and 10; built once per case. Without it those cases are left out. */
  readonly mortal?: Effect.Effect<MortalClient, unknown, R | Scope.Scope> | undefined
  /** A new client whose grants can be ended, for laws 3 and 9; built once per case. Without it those cases are left out. */
  readonly revocable?: Effect.Effect<RevocableClient, unknown, R | Scope.Scope> | undefined
  /** A new client whose messages can be late, for laws 2 and 5; built once per case. Without it those cases are left out. */
  readonly late?: Effect.Effect<LateClient, unknown, R | Scope.Scope> | undefined
  /** A new client whose requests are counted, for laws 6 and 10; built once per case. Without it those cases are left out. */
  readonly counted?: Effect.Effect<CountedClient, unknown, R | Scope.Scope> | undefined
  /**
   * A new client whose address leads, from `begin` to `end`, to another server, which does not replicate the one before
   * (law 12), while the address of the other clients stays; built once per case. Without it those cases are left out.
   */
  readonly swapped?: Effect.Effect<DisturbedClient, unknown, R | Scope.Scope> | undefined
  /**
   * A new client whose server answers, from `begin` to `end`, with a reply that passes by itself: loading, read-only,
   * busy, no quorum (law 13), while the server of the other clients is not; built once per case. Without it those cases are left out.
   */
  readonly busy?: Effect.Effect<DisturbedClient, unknown, R | Scope.Scope> | undefined
  /**
   * A new client whose server has, from `begin` to `end`, no connection or thread left for another waiter (law 13); built
   * once per case. Without it those cases are left out.
   */
  readonly full?: Effect.Effect<DisturbedClient, unknown, R | Scope.Scope> | undefined
}
