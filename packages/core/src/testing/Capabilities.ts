import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { LockBackend, LockRequest } from "../LockBackend.ts"

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
 * A third client of the store, whose leases can be ended behind its back.
 *
 * @category models
 * @since 0.1.0
 */
export interface RevocableClient {
  readonly client: LockBackend["Service"]
  /**
   * Ends the lease of a granted request on the server: deletes its key, expires its session, kills its connection.
   * Other leases of this client may end with it.
   */
  readonly revoke: (request: LockRequest) => Effect.Effect<void>
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
  /** As in `LockBackend`. Cases that let a lease end by not renewing it are for `lease` only. */
  readonly tenure: "lease" | "session"
  /** `request`: a lease lasts about as long as was asked for. `session`: the request's ttl does not apply. */
  readonly ttl: "request" | "session"
  /**
   * The ttl of leases that a case lets end, or keeps alive by renewing every third of it. The smallest that the backend
   * can do makes the fastest suite; with real time, not so small that a busy machine renews too late.
   */
  readonly minTtl: Duration.Input
  /** How much later than the ttl the server may free the key of a dead holder. Default: 0. */
  readonly granularity?: Duration.Input | undefined
  /** How long a waiter that died may hold up those behind it (law 6). Default: `minTtl` and `granularity`. */
  readonly deadWaiterDelay?: Duration.Input | undefined
  /** How long a verb may take when the server is not there (law 10). Default: 5 seconds. */
  readonly commandTimeout?: Duration.Input | undefined
  /** The line is strictly first come, first served, and `tryAcquire` stands back for it. */
  readonly fifo: boolean
  /** `onLost` is called when a lease is lost (law 9). */
  readonly pushesLoss: boolean
  /** Keys that `check` refuses. Every other key of 1 to 512 characters must be a lock of its own. Default: none. */
  readonly refuses?: ((key: string) => boolean) | undefined
  /** How many attempts stand in line at once in the cases under load. Default: 100. */
  readonly contenders?: number | undefined
  /** How many attempts stand in line for a key, as the server sees it; the holder may be counted or not. */
  readonly inLine?: ((key: string) => Effect.Effect<number, unknown, R>) | undefined
  /** Without `inLine`: the time after which an `acquire` surely stands in line. Default: 100 milliseconds. */
  readonly settle?: Duration.Input | undefined
  /** A new client that can be cut off, for laws 6, 8 and 10; built once per case. Without it those cases are left out. */
  readonly mortal?: Effect.Effect<MortalClient, unknown, R | Scope.Scope> | undefined
  /** A new client that can be robbed, for laws 3 and 9; built once per case. Without it those cases are left out. */
  readonly revocable?: Effect.Effect<RevocableClient, unknown, R | Scope.Scope> | undefined
}
