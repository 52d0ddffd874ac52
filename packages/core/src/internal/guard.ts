/**
 * Runs work under a lease: it is interrupted when the lease is lost, and has ended before anything else happens.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { LockLost } from "../LockError.ts"
import { type Lease, lossOf } from "./lease.ts"
import { CurrentSection } from "./section.ts"

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** What work runs under: one lease, or several that are held together. */
export interface Guarding {
  /** By the clock: the process may have stood still since the grant, and no timer has rung yet. */
  isHeld(): boolean
  /** Interrupts the fiber when the lease is lost, or has been. */
  addWorker(fiber: Fiber.Fiber<unknown, unknown>): void
  removeWorker(fiber: Fiber.Fiber<unknown, unknown> | undefined): void
}

/**
 * Runs the program in a fiber of its own, because the interruption of the caller's fiber could not become `LockLost`, and
 * then what its exit makes of it. `section` is what the fibers of the program are in.
 *
 * Must run uninterruptibly.
 */
export const run = <L extends Guarding, A, E, R, B, E2>(
  lease: L,
  program: Effect.Effect<A, E, R>,
  section: Lease | undefined,
  restore: Restore,
  conclude: (lease: L, exit: Exit.Exit<A, E>) => Effect.Effect<B, E2>
): Effect.Effect<B, E2, R> =>
  Effect.contextWith((context: Context.Context<R>) => {
    const inside = section === undefined ? context : Context.add(context, CurrentSection, section)
    return supervise(lease, () => Effect.runForkWith(inside)(program), restore, conclude)
  })

/**
 * The fiber is started where `restore` makes it interruptible, and is known outside: an interruption of the caller is
 * passed on, and the end of the program is awaited.
 */
const supervise = <L extends Guarding, A, E, B, E2>(
  lease: L,
  start: (() => Fiber.Fiber<A, E>) | undefined,
  restore: Restore,
  conclude: (lease: L, exit: Exit.Exit<A, E>) => Effect.Effect<B, E2>
): Effect.Effect<B, E2> => {
  let fiber: Fiber.Fiber<A, E> | undefined
  const work = Effect.callback<Exit.Exit<A, E>>((resume) => {
    if (!lease.isHeld() || start === undefined) return resume(Effect.succeed(Exit.interrupt()))
    const child = start()
    fiber = child
    // Effects keep what they were made of: the program is let go of as soon as it runs.
    start = undefined
    lease.addWorker(child)
    child.addObserver((exit) => resume(Effect.succeed(exit)))
  })
  return Effect.matchCauseEffect(restore(work), {
    onSuccess: (exit) => {
      lease.removeWorker(fiber)
      return conclude(lease, exit)
    },
    onFailure: (cause) =>
      fiber === undefined
        ? conclude(lease, Exit.failCause(cause))
        : Effect.flatMap(interrupt(lease, fiber, cause), (exit) => conclude(lease, exit))
  })
}

/** Passes the interruption of the caller on, and awaits the end of the work. */
const interrupt = <A, E>(
  lease: Guarding,
  fiber: Fiber.Fiber<A, E>,
  cause: Cause.Cause<never>
): Effect.Effect<Exit.Exit<A, E>> =>
  Effect.callback((resume) => {
    for (const fiberId of Cause.interruptors(cause)) fiber.interruptUnsafe(fiberId)
    fiber.interruptUnsafe()
    fiber.addObserver((exit) => {
      lease.removeWorker(fiber)
      resume(Effect.succeed(exit))
    })
  })

/** What the work ends with when the lease was lost: `LockLost`, and the defects of the work, if any. */
export const withLoss = <A, E>(loss: LockLost, exit: Exit.Exit<A, E>): Exit.Exit<never, LockLost> => {
  const lost = Cause.fail(loss)
  return Exit.failCause(
    Exit.isSuccess(exit) ? lost : Cause.combine(lost, Cause.fromReasons(exit.cause.reasons.filter(Cause.isDieReason)))
  )
}

const whileHeld = <A, E>(lease: Lease, exit: Exit.Exit<A, E>): Exit.Exit<A, E | LockLost> =>
  lease.state === "lost" ? withLoss(lossOf(lease), exit) : exit

/** Runs the effect while the lease is held; fails with `LockLost` when it is not, or no longer. */
export const guard = <A, E, R>(lease: Lease, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | LockLost, R> =>
  Effect.uninterruptibleMask((restore) =>
    lease.isHeld()
      ? run<Lease, A, E, R, A, E | LockLost>(lease, effect, undefined, restore, whileHeld)
      : Effect.fail(lossOf(lease))
  )
