/**
 * Locks for programs without Effect, with the shape of the Web Locks API.
 *
 * A promise cannot be interrupted. When a lease is lost, its `signal` is aborted, but the callback runs on, perhaps beside
 * the next owner's, until it looks at the signal: pass the signal to whatever takes one, and `fencingToken` to whatever
 * checks it.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Lease } from "../Lease.ts"
import { Lock } from "../Lock.ts"
import { InvalidLockRequest } from "../LockError.ts"

/**
 * How a lock is requested: the options of `withLock`, and those of the Web Locks API.
 *
 * @category models
 * @since 0.1.0
 */
export interface RequestOptions extends Lock.Options {
  /** Ends the wait for the lock; the promise is rejected with its reason. It changes nothing once the lock is granted. */
  readonly signal?: AbortSignal | undefined
  /** `true`: does not wait; the callback is called with `null` if the key is not free now. Default: `false`. */
  readonly ifAvailable?: boolean | undefined
}

/**
 * A key that is held, until it is released or lost. It is released by `await using`, too.
 *
 * @category models
 * @since 0.1.0
 */
export interface PromiseLease {
  /** What is locked. */
  readonly key: string
  /** The owner: the label and a UUID. */
  readonly owner: string
  /** The name of the backend that stores it. */
  readonly backend: string
  /** Grows with every lease of the key: give it to the resource, and let the resource refuse smaller ones. */
  readonly fencingToken: bigint
  /** Aborted as soon as the lease is lost; the reason is the `LockLost`. */
  readonly signal: AbortSignal
  /** What is known locally: not released, not lost, the deadline not passed. */
  readonly isHeld: boolean
  /** The time to the local deadline in milliseconds; zero when it is not held. */
  readonly remaining: number
  /** Asks the backend for another ttl now. Rejects with `LockLost` when it is not held any more. */
  readonly renew: () => Promise<void>
  /** Releases the key early; may be called again. Rejects with `LockLost` when it turns out that the key was not ours. */
  readonly release: () => Promise<void>
  /** Releases the key; a lease that was lost is none to release. */
  readonly [Symbol.asyncDispose]: () => Promise<void>
}

/** What a callback threw, so that it is not mistaken for an error of the lock. */
class Thrown {
  readonly error: unknown
  constructor(error: unknown) {
    this.error = error
  }
}

class HeldLease implements PromiseLease {
  readonly key: string
  readonly owner: string
  readonly backend: string
  readonly fencingToken: bigint
  readonly signal: AbortSignal
  readonly #lease: Lease
  readonly #end: Effect.Effect<void>

  constructor(lease: Lease, signal: AbortSignal, end: Effect.Effect<void>) {
    this.key = lease.key
    this.owner = lease.owner
    this.backend = lease.backend
    this.fencingToken = lease.fencingToken
    this.signal = signal
    this.#lease = lease
    this.#end = end
  }

  get isHeld(): boolean {
    return Effect.runSync(this.#lease.isHeld)
  }

  get remaining(): number {
    return Duration.toMillis(Effect.runSync(this.#lease.remaining))
  }

  renew(): Promise<void> {
    return settle(this.#lease.renew)
  }

  release(): Promise<void> {
    return settle(Effect.ensuring(this.#lease.release, this.#end))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return settle(this.#end)
  }
}

/** The value, or the error itself. */
const settle = <A, E>(effect: Effect.Effect<A, E>): Promise<A> =>
  Effect.runPromiseExit(effect).then((exit) => Exit.isSuccess(exit) ? exit.value : Promise.reject(errorOf(exit.cause)))

const errorOf = (cause: Cause.Cause<unknown>): unknown => {
  const error = Cause.squash(cause)
  return error instanceof Thrown ? error.error : error
}

/** The lease with a signal, which is watched for until the scope closes. */
const held = (lease: Lease, scope: Scope.Closeable): Effect.Effect<PromiseLease> => {
  const controller = new AbortController()
  const watch = Effect.catch(lease.lost, (loss) => Effect.sync(() => controller.abort(loss)))
  const end = Effect.suspend(() => Scope.close(scope, Exit.void))
  return Effect.as(
    Effect.forkIn(watch, scope, { startImmediately: true }),
    new HeldLease(lease, controller.signal, end)
  )
}

type Callback<L, A> = (lease: L) => PromiseLike<A> | A

interface Refusable<A> {
  call(lease: PromiseLease | null): PromiseLike<A> | A
}

/** It runs to its end, whatever happens: a promise cannot be interrupted. */
const settled = <A>(run: () => PromiseLike<A> | A): Effect.Effect<A, Thrown> =>
  Effect.uninterruptible(Effect.callback<A, Thrown>((resume) => {
    new Promise<A>((resolve) => resolve(run())).then(
      (value) => resume(Effect.succeed(value)),
      (error: unknown) => resume(Effect.fail(new Thrown(error)))
    )
  }))

/**
 * Locks by promises, over a `Lock` layer of any backend.
 *
 * @category services
 * @since 0.1.0
 */
export class LockManager {
  /** The name of the backend. */
  readonly backend: string
  readonly #lock: Lock["Service"]
  readonly #scope: Scope.Closeable

  private constructor(lock: Lock["Service"], scope: Scope.Closeable) {
    this.backend = lock.backend
    this.#lock = lock
    this.#scope = scope
  }

  /**
   * Builds the layer, and rejects with its error. Close the manager at the end: it releases what is held, and lets the
   * process end.
   *
   * @since 0.1.0
   */
  static make<E>(layer: Layer.Layer<Lock, E>): Promise<LockManager> {
    return settle(Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Effect.onError(
        Layer.buildWithScope(layer, scope),
        (cause) => Scope.close(scope, Exit.failCause(cause))
      )
      return new LockManager(Context.get(context, Lock), scope)
    }))
  }

  /**
   * Waits for the key, calls back while it is held, and releases it. The promise settles when the callback has: with its
   * result, with what it threw, or with the `LockLost` if the lease was lost meanwhile.
   *
   * Asking for a key inside its own callback waits for itself: there is no fiber by which it could be noticed.
   *
   * @since 0.1.0
   */
  request<A>(key: string, callback: Callback<PromiseLease, A>): Promise<A>
  request<A>(
    key: string,
    options: RequestOptions & { readonly ifAvailable?: false | undefined },
    callback: Callback<PromiseLease, A>
  ): Promise<A>
  request<A>(key: string, options: RequestOptions, callback: Callback<PromiseLease | null, A>): Promise<A>
  request<A>(
    key: string,
    second: RequestOptions | Callback<PromiseLease, A>,
    third?: Callback<PromiseLease, A>
  ): Promise<A> {
    const [options, callback]: [RequestOptions, Callback<PromiseLease, A> | undefined] = typeof second === "function"
      ? [{}, second]
      : [second, third]
    if (typeof callback !== "function") return invalid(key, "the callback must be a function")
    const problem = problemOf(options)
    if (problem !== undefined) return invalid(key, problem)
    const { ifAvailable, retry, signal, timeout, ...rest } = options
    // The overloads see to it that a callback that may get null takes it.
    const refused: Refusable<A> = { call: callback }
    let ended: Exit.Exit<A, Thrown> | undefined
    let isGranted = false
    const answer = (run: () => PromiseLike<A> | A): Effect.Effect<A, Thrown> => {
      isGranted = true
      return Effect.flatMap(Effect.exit(settled(run)), (exit) => {
        ended = exit
        return exit
      })
    }
    const program = (lease: Lease) =>
      Effect.uninterruptible(
        Effect.flatMap(Effect.scope, (outer) =>
          Effect.flatMap(Scope.fork(outer), (scope) =>
            Effect.flatMap(held(lease, scope), (mine) =>
              answer(() => callback(mine)))))
      )
    const work = ifAvailable === true
      ? Effect.flatMap(
        this.#lock.withLockIfAvailable(key, program, rest),
        Option.match({ onSome: Effect.succeed, onNone: () => answer(() => refused.call(null)) })
      )
      : this.#lock.withLock(key, program, { ...rest, retry, timeout })
    return abortable(work, signal, () => isGranted, () => ended)
  }

  /**
   * Waits for the key, and holds it until the lease is released: `await using lease = await locks.acquire("key")`.
   *
   * @since 0.1.0
   */
  acquire(key: string, options: Omit<RequestOptions, "ifAvailable"> = {}): Promise<PromiseLease> {
    const problem = problemOf(options)
    if (problem !== undefined) return invalid(key, problem)
    const { signal, ...rest } = options
    const scope = Scope.makeUnsafe()
    const taken = Effect.flatMap(Scope.provide(this.#lock.acquire(key, rest), scope), (lease) => held(lease, scope))
    // What was taken in the step in which the wait was aborted has no taker.
    return abortable(taken, signal, () => false, () => undefined).catch((error: unknown) =>
      settle(Scope.close(scope, Exit.void)).then(() => Promise.reject(error))
    )
  }

  /**
   * Releases what is held and ends what waits. What is held by a callback is lost (`closed`).
   *
   * @since 0.1.0
   */
  close(): Promise<void> {
    return settle(Scope.close(this.#scope, Exit.void))
  }

  /**
   * The same as `close`, for `await using`.
   *
   * @since 0.1.0
   */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** What is wrong with options that JavaScript may give: the others are looked at by `Lock`. */
const problemOf = (options: unknown): string | undefined => {
  if (typeof options !== "object" || options === null) return "the options must be an object"
  return "signal" in options && options.signal !== undefined && !(options.signal instanceof AbortSignal)
    ? "signal must be an AbortSignal"
    : undefined
}

const invalid = (key: unknown, problem: string): Promise<never> =>
  Promise.reject(new InvalidLockRequest({ key: String(key), problem }))

/** Runs it; the signal ends it as long as nothing is granted. */
const abortable = <A, E>(
  effect: Effect.Effect<A, E>,
  signal: AbortSignal | undefined,
  isGranted: () => boolean,
  ended: () => Exit.Exit<A, Thrown> | undefined
): Promise<A> => {
  if (signal === undefined) return settle(effect)
  if (signal.aborted) return Promise.reject(signal.reason)
  return new Promise<A>((resolve, reject) => {
    const fiber = Effect.runFork(effect)
    const abort = () => {
      if (!isGranted()) fiber.interruptUnsafe()
    }
    signal.addEventListener("abort", abort)
    fiber.addObserver((exit) => {
      signal.removeEventListener("abort", abort)
      // The callback may have been called in the step in which the wait was aborted: then its end counts.
      const last: Exit.Exit<A, E | Thrown> | undefined = Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
        ? ended()
        : exit
      if (last === undefined) reject(signal.reason)
      else if (Exit.isSuccess(last)) resolve(last.value)
      else reject(errorOf(last.cause))
    })
  })
}
