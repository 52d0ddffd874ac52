/**
 * Mutual exclusion by key over many machines: the `Lock` service and the functions that use it.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as internal from "./internal/lock.ts"
import * as locks from "./internal/locks.ts"
import type * as options from "./internal/options.ts"
import type * as permit from "./internal/permit.ts"
import * as permits from "./internal/permits.ts"
import type * as permitSearch from "./internal/permitSearch.ts"
import { optional, type ProgramOf } from "./internal/section.ts"
import type { Lease } from "./Lease.ts"
import { type Inspection, LockBackend } from "./LockBackend.ts"
import type { InvalidLockRequest, LockBackendError, LockError, LockLost, LockUnavailable } from "./LockError.ts"

/**
 * The types of the service: options, programs and permits.
 *
 * @since 0.1.0
 */
export declare namespace Lock {
  /**
   * How a lock is taken and kept. Every field may be left out.
   *
   * @category models
   * @since 0.1.0
   */
  type Options = options.Options

  /**
   * The options of the forms that do not wait.
   *
   * @category models
   * @since 0.1.0
   */
  type TryOptions = Omit<Options, "timeout" | "retry">

  /**
   * The defaults of a layer: those of every lock, and the turn.
   *
   * @category models
   * @since 0.1.0
   */
  type Defaults = options.Defaults

  /**
   * What runs under a lock: an effect, or a function of the lease.
   *
   * @category models
   * @since 0.1.0
   */
  type Program<A, E, R> = Effect.Effect<A, E, R> | ((lease: Lease) => Effect.Effect<A, E, R>)

  /**
   * The options of the forms for several keys, which always stand in line.
   *
   * @category models
   * @since 0.1.0
   */
  type LocksOptions = Omit<Options, "retry" | "linger">

  /**
   * The options of the form for several keys that does not wait.
   *
   * @category models
   * @since 0.1.0
   */
  type TryLocksOptions = Omit<LocksOptions, "timeout">

  /**
   * What runs under several locks: an effect, or a function of the leases, one for each key that was given.
   *
   * @category models
   * @since 0.1.0
   */
  type LocksProgram<Keys extends ReadonlyArray<string>, A, E, R> =
    | Effect.Effect<A, E, R>
    | ((leases: { readonly [I in keyof Keys]: Lease }) => Effect.Effect<A, E, R>)

  /**
   * How many permits there are, and how many are asked for.
   *
   * @category models
   * @since 0.1.0
   */
  type PermitAmount = permits.Amount

  /**
   * A lease of permits; `permit` is the number of the (first) one.
   *
   * @category models
   * @since 0.1.0
   */
  type Permit = permit.Permit

  /**
   * What runs with permits: an effect, or a function of the `Permit`.
   *
   * @category models
   * @since 0.1.0
   */
  type PermitProgram<A, E, R> = Effect.Effect<A, E, R> | ((permit: Permit) => Effect.Effect<A, E, R>)

  /**
   * The options of the form for permits, which always stands in line.
   *
   * @category models
   * @since 0.1.0
   */
  type PermitOptions = permitSearch.PermitOptions

  /**
   * The options of the form for permits that does not wait.
   *
   * @category models
   * @since 0.1.0
   */
  type TryPermitOptions = Omit<PermitOptions, "timeout">
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
  /** The holder of the key and its waiters, as the server tells them. Reads only. */
  readonly inspect: (key: string) => Effect.Effect<Inspection, LockBackendError | InvalidLockRequest>
  /** Ends the hold of exactly this owner; `false`: it does not hold the key. `Unsupported` where it cannot be exact. */
  readonly revoke: (key: string, owner: string) => Effect.Effect<boolean, LockBackendError | InvalidLockRequest>
  /** One round trip that fails when locks cannot be taken now. */
  readonly ping: Effect.Effect<void, LockBackendError>
}>()("@dlock/core/Lock") {
  /**
   * Locks over the `LockBackend` of the context. The layer's scope carries the watchdog and what is still to be released
   * when a caller has already gone on.
   *
   * @category layers
   * @since 0.1.0
   */
  // A new layer each time: one that is built already is used again, and would bring its own backend with it.
  static get layer(): Layer.Layer<Lock, never, LockBackend> {
    return Layer.effect(Lock, Effect.flatMap(LockBackend, internal.make))
  }
}

// A promise is a program too, which is refused with a sentence, and no options.
const isProgram = <L, A, E, R>(u: ProgramOf<L, A, E, R> | Lock.Options | undefined): u is ProgramOf<L, A, E, R> =>
  typeof u === "function" || Effect.isEffect(u) || u instanceof Promise

/**
 * Waits for `key`, runs `program` while holding it, and releases it. `program` has a scope of its own, which closes
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
 * Waits for `key` and holds it until the surrounding scope closes. Run the work with `lease.guard`, which interrupts it and
 * fails with `LockLost` when the lease is lost.
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

type ManyProgram<A, E, R> = ProgramOf<ReadonlyArray<Lease>, A, E, R>

/**
 * Waits for all `keys`, runs `program` while holding them, and releases them in the reverse order. Keys are taken in one
 * order, whatever the order in which they are given, so callers never wait for each other in a circle; `timeout` is over
 * all of them. When any lease is lost, `program` is interrupted and the result is the `LockLost` that names the key.
 *
 * `program` is an effect, or a function of the leases: one for each key, in the order given. Without keys it just runs.
 * Nothing that is configured as a default for `retry`, `timeout`, `linger` or `minHold` counts here.
 *
 * @category combinators
 * @since 0.1.0
 */
export function withLocks<const Keys extends ReadonlyArray<string>>(keys: Keys, options?: Lock.LocksOptions): <A, E, R>(
  program: Lock.LocksProgram<Keys, A, E, R>
) => Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope> | Lock>
export function withLocks<const Keys extends ReadonlyArray<string>, A, E, R>(
  keys: Keys,
  program: Lock.LocksProgram<Keys, A, E, R>,
  options?: Lock.LocksOptions
): Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope> | Lock>
export function withLocks<A, E, R>(
  keys: ReadonlyArray<string>,
  second?: ManyProgram<A, E, R> | Lock.LocksOptions,
  third?: Lock.LocksOptions
) {
  const all = (program: ManyProgram<A, E, R>, options: Lock.LocksOptions | undefined) =>
    Effect.flatMap(Lock, (lock) => locks.withLocks(lock.withLock, keys, program, options, Exit.fail))
  return isProgram(second)
    ? all(second, third)
    : (program: ManyProgram<A, E, R>) => all(program, second)
}

/**
 * Runs `program` while holding all `keys` if all of them are free now; `none`, and nothing held, otherwise.
 *
 * @category combinators
 * @since 0.1.0
 */
export function withLocksIfAvailable<const Keys extends ReadonlyArray<string>>(
  keys: Keys,
  options?: Lock.TryLocksOptions
): <A, E, R>(
  program: Lock.LocksProgram<Keys, A, E, R>
) => Effect.Effect<
  Option.Option<A>,
  E | LockLost | LockBackendError | InvalidLockRequest,
  Exclude<R, Scope.Scope> | Lock
>
export function withLocksIfAvailable<const Keys extends ReadonlyArray<string>, A, E, R>(
  keys: Keys,
  program: Lock.LocksProgram<Keys, A, E, R>,
  options?: Lock.TryLocksOptions
): Effect.Effect<
  Option.Option<A>,
  E | LockLost | LockBackendError | InvalidLockRequest,
  Exclude<R, Scope.Scope> | Lock
>
export function withLocksIfAvailable<A, E, R>(
  keys: ReadonlyArray<string>,
  second?: ManyProgram<A, E, R> | Lock.TryLocksOptions,
  third?: Lock.TryLocksOptions
) {
  const all = (program: ManyProgram<A, E, R>, options: Lock.TryLocksOptions | undefined) =>
    Effect.flatMap(Lock, (lock) =>
      locks.withLocks(
        lock.withLock,
        keys,
        optional(keys[0] ?? "", program),
        { ...options, timeout: 0 },
        () => Exit.succeed(Option.none<A>())
      ))
  return isProgram(second)
    ? all(second, third)
    : (program: ManyProgram<A, E, R>) => all(program, second)
}

/**
 * Waits for permits of `key`, of which at most `limit` are in use over all processes, runs `program` with them, and
 * releases them. Callers are served in the order in which they come, whatever number of permits they ask for; `permits: 1`
 * and `permits: limit` are readers and writers.
 *
 * `program` is an effect, or a function of the `Permit`. When a permit is lost, `program` is interrupted and the result is
 * `LockLost`. A request with a smaller limit gets one of the first permits, and may hold up those behind it.
 *
 * @category combinators
 * @since 0.1.0
 */
export function withPermit(key: string, amount: Lock.PermitAmount, options?: Lock.PermitOptions): <A, E, R>(
  program: Lock.PermitProgram<A, E, R>
) => Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope> | Lock>
export function withPermit<A, E, R>(
  key: string,
  amount: Lock.PermitAmount,
  program: Lock.PermitProgram<A, E, R>,
  options?: Lock.PermitOptions
): Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope> | Lock>
export function withPermit<A, E, R>(
  key: string,
  amount: Lock.PermitAmount,
  third?: Lock.PermitProgram<A, E, R> | Lock.PermitOptions,
  fourth?: Lock.PermitOptions
) {
  const one = (program: Lock.PermitProgram<A, E, R>, options: Lock.PermitOptions | undefined) =>
    Effect.flatMap(Lock, (lock) => permits.withPermit(lock, key, amount, program, options, Exit.fail))
  return isProgram(third)
    ? one(third, fourth)
    : (program: Lock.PermitProgram<A, E, R>) => one(program, third)
}

/**
 * Runs `program` with permits of `key` if so many are free now; `none`, and nothing held, otherwise. It does not stand in
 * line, so it may slip in while a request in line waits for more permits.
 *
 * @category combinators
 * @since 0.1.0
 */
export function withPermitIfAvailable(
  key: string,
  amount: Lock.PermitAmount,
  options?: Lock.TryPermitOptions
): <A, E, R>(
  program: Lock.PermitProgram<A, E, R>
) => Effect.Effect<
  Option.Option<A>,
  E | LockLost | LockBackendError | InvalidLockRequest,
  Exclude<R, Scope.Scope> | Lock
>
export function withPermitIfAvailable<A, E, R>(
  key: string,
  amount: Lock.PermitAmount,
  program: Lock.PermitProgram<A, E, R>,
  options?: Lock.TryPermitOptions
): Effect.Effect<
  Option.Option<A>,
  E | LockLost | LockBackendError | InvalidLockRequest,
  Exclude<R, Scope.Scope> | Lock
>
export function withPermitIfAvailable<A, E, R>(
  key: string,
  amount: Lock.PermitAmount,
  third?: Lock.PermitProgram<A, E, R> | Lock.TryPermitOptions,
  fourth?: Lock.TryPermitOptions
) {
  const one = (program: Lock.PermitProgram<A, E, R>, options: Lock.TryPermitOptions | undefined) =>
    Effect.flatMap(Lock, (lock) =>
      permits.withPermit(
        lock,
        key,
        amount,
        optional(key, program),
        { ...options, timeout: 0 },
        () => Exit.succeed(Option.none<A>())
      ))
  return isProgram(third)
    ? one(third, fourth)
    : (program: Lock.PermitProgram<A, E, R>) => one(program, third)
}
