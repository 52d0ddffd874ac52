/**
 * Mutual exclusion by key over many machines: the `Lock` service and the functions that use it.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as internal from "./internal/section.ts"
import type { Lease } from "./Lease.ts"
import { LockBackend } from "./LockBackend.ts"
import type { InvalidLockRequest, LockBackendError, LockError, LockLost, LockUnavailable } from "./LockError.ts"

/**
 * @since 0.1.0
 */
export declare namespace Lock {
  /**
   * How a lock is taken and kept. Every field may be left out.
   *
   * @category models
   * @since 0.1.0
   */
  interface Options {
    /** How long the backend keeps the lease without renewal, at least 10 milliseconds. Default: 30 seconds. */
    readonly ttl?: Duration.Input | undefined
    /** The longest wait; then `LockUnavailable` (`timeout`). Zero: a single attempt. Default: no limit. */
    readonly timeout?: Duration.Input | undefined
    /** Attempts on this schedule, instead of a place in the backend's line. Default: the line. */
    readonly retry?: Schedule.Schedule<unknown, LockUnavailable> | undefined
    /** How often the watchdog renews; `true` is every third of the ttl, `false` is never. Default: `true`. */
    readonly renew?: boolean | Duration.Input | undefined
    /** No renewal beyond this; the lease is then lost (`maxHold`). Default: no limit. */
    readonly maxHold?: Duration.Input | undefined
    /** A label for people, put before the UUID that makes the owner unique. Default: the host's and process' id. */
    readonly owner?: string | undefined
  }

  /**
   * The options of the forms that do not wait.
   *
   * @category models
   * @since 0.1.0
   */
  type TryOptions = Omit<Options, "timeout" | "retry">

  /**
   * What runs under a lock: an effect, or a function of the lease.
   *
   * @category models
   * @since 0.1.0
   */
  type Program<A, E, R> = Effect.Effect<A, E, R> | ((lease: Lease) => Effect.Effect<A, E, R>)
}

/**
 * Distributed locks, over the backend whose layer is provided.
 *
 * @category services
 * @since 0.1.0
 */
export class Lock extends Context.Service<Lock, {
  /** The name of the backend: `memory`, `redis`, `etcd`, ... */
  readonly backend: string
  /** Waits for the key and holds it until the scope closes. */
  readonly acquire: (
    key: string,
    options?: Lock.Options
  ) => Effect.Effect<Lease, LockUnavailable | LockBackendError | InvalidLockRequest, Scope.Scope>
  /** Holds the key until the scope closes if it is free now; `none` otherwise. */
  readonly tryAcquire: (
    key: string,
    options?: Lock.TryOptions
  ) => Effect.Effect<Option.Option<Lease>, LockBackendError | InvalidLockRequest, Scope.Scope>
  /** Waits for the key and holds it while the program runs. */
  readonly withLock: <A, E, R>(
    key: string,
    program: Lock.Program<A, E, R>,
    options?: Lock.Options
  ) => Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope>>
  /** Runs the program under the key if it is free now; `none` otherwise. */
  readonly withLockIfAvailable: <A, E, R>(
    key: string,
    program: Lock.Program<A, E, R>,
    options?: Lock.TryOptions
  ) => Effect.Effect<
    Option.Option<A>,
    E | LockLost | LockBackendError | InvalidLockRequest,
    Exclude<R, Scope.Scope>
  >
}>()("@dlock/core/Lock") {
  /**
   * Locks over the `LockBackend` of the context. The layer's scope carries the watchdog and what is still to be given
   * back when a caller has already gone on.
   *
   * @category layers
   * @since 0.1.0
   */
  // A new layer each time: one that is built already is used again, and would bring its own backend with it.
  static get layer(): Layer.Layer<Lock, never, LockBackend> {
    return Layer.effect(Lock, Effect.flatMap(LockBackend, internal.make))
  }
}

const isProgram = <A, E, R>(u: Lock.Program<A, E, R> | Lock.Options | undefined): u is Lock.Program<A, E, R> =>
  typeof u === "function" || Effect.isEffect(u)

/**
 * Waits for `key`, runs `program` while holding it, gives it back. `program` has a scope of its own, which closes
 * before the key is free. When the lease is lost, `program` is interrupted and the result is `LockLost`.
 *
 * `program` is an effect, or a function of the `Lease`. Data-last: `program.pipe(withLock(key, options))`.
 *
 * @category combinators
 * @since 0.1.0
 */
export function withLock(key: string, options?: Lock.Options): <A, E, R>(
  program: Lock.Program<A, E, R>
) => Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope> | Lock>
export function withLock<A, E, R>(
  key: string,
  program: Lock.Program<A, E, R>,
  options?: Lock.Options
): Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope> | Lock>
export function withLock<A, E, R>(
  key: string,
  second?: Lock.Program<A, E, R> | Lock.Options,
  third?: Lock.Options
) {
  return isProgram(second)
    ? Effect.flatMap(Lock, (lock) => lock.withLock(key, second, third))
    : (program: Lock.Program<A, E, R>) => Effect.flatMap(Lock, (lock) => lock.withLock(key, program, second))
}

/**
 * Runs `program` while holding `key` if the key is free now; `none` when another owner holds it or stands in line.
 *
 * @category combinators
 * @since 0.1.0
 */
export function withLockIfAvailable(key: string, options?: Lock.TryOptions): <A, E, R>(
  program: Lock.Program<A, E, R>
) => Effect.Effect<
  Option.Option<A>,
  E | LockLost | LockBackendError | InvalidLockRequest,
  Exclude<R, Scope.Scope> | Lock
>
export function withLockIfAvailable<A, E, R>(
  key: string,
  program: Lock.Program<A, E, R>,
  options?: Lock.TryOptions
): Effect.Effect<
  Option.Option<A>,
  E | LockLost | LockBackendError | InvalidLockRequest,
  Exclude<R, Scope.Scope> | Lock
>
export function withLockIfAvailable<A, E, R>(
  key: string,
  second?: Lock.Program<A, E, R> | Lock.TryOptions,
  third?: Lock.TryOptions
) {
  return isProgram(second)
    ? Effect.flatMap(Lock, (lock) => lock.withLockIfAvailable(key, second, third))
    : (program: Lock.Program<A, E, R>) => Effect.flatMap(Lock, (lock) => lock.withLockIfAvailable(key, program, second))
}

/**
 * Waits for `key` and holds it until the surrounding scope closes. Race the work against `lease.lost`.
 *
 * @category combinators
 * @since 0.1.0
 */
export const acquire = (
  key: string,
  options?: Lock.Options
): Effect.Effect<Lease, LockUnavailable | LockBackendError | InvalidLockRequest, Scope.Scope | Lock> =>
  Effect.flatMap(Lock, (lock) => lock.acquire(key, options))

/**
 * Holds `key` until the surrounding scope closes if it is free now; `none` otherwise.
 *
 * @category combinators
 * @since 0.1.0
 */
export const tryAcquire = (
  key: string,
  options?: Lock.TryOptions
): Effect.Effect<Option.Option<Lease>, LockBackendError | InvalidLockRequest, Scope.Scope | Lock> =>
  Effect.flatMap(Lock, (lock) => lock.tryAcquire(key, options))
