/**
 * How a key is given back: the duty that ends every attempt, whatever became of it, and that is over only when the
 * backend has answered, or has nothing left to give back.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { LockBackendError } from "../LockError.ts"
import { longestGoodbye } from "./call.ts"
import type { Engine } from "./engine.ts"
import type { Holding } from "./holding.ts"
import { debug } from "./telemetry.ts"
import { Timer } from "./watchdog.ts"

const firstRetry = 50
const longestRetry = 1000
/** The default command timeout of every backend. */
const longestAnswer = 5000

/** The whole duty. */
export const giveBack = (engine: Engine, holding: Holding): Effect.Effect<void> =>
  Effect.uninterruptible(Effect.suspend(() => startGivingBack(engine, holding)))

/** The same, begun in this very step; what comes back must be run once, uninterruptibly. */
export const startGivingBack = (engine: Engine, holding: Holding): Effect.Effect<void> => {
  if (holding.duty !== "owed") return Effect.asVoid(awaitReturn(engine, holding, Number.POSITIVE_INFINITY))
  holding.duty = "running"
  const wasHeld = holding.stop()
  const renewal = holding.renewalInFlight
  if (renewal === undefined) return sendRelease(engine, holding, wasHeld, firstRetry)
  // Renew never re-creates, so going on without its answer is safe.
  const answered = engine.asked(() => Effect.raceFirst(Fiber.await(renewal), Effect.sleep(longestAnswer)))
  return Effect.flatMap(answered, () => sendRelease(engine, holding, wasHeld, firstRetry))
}

const sendRelease = (
  engine: Engine,
  holding: Holding,
  wasHeld: boolean,
  retryIn: number
): Effect.Effect<void> => {
  if (retryIn === firstRetry && holding.state !== "lost") holding.place?.handOn()
  return Effect.matchCauseEffect(engine.asked(() => engine.backend.release(holding)), {
    onSuccess: (ours) => {
      // The second answer to a release that was sent twice is "not ours", though it was.
      if (!ours && wasHeld && retryIn === firstRetry) engine.telemetry.releasedLate()
      returned(engine, holding)
      return debug(() => `Lock "${holding.key}" is given back by ${holding.owner}`, Effect.void)
    },
    onFailure: (cause) => {
      engine.telemetry.releaseFailed()
      holding.place?.leave()
      const error = releaseError(engine, cause)
      holding.releaseError = error
      const over = engine.backend.tenure === "lease" && holding.ended(engine.watchdog.now())
      if (over || engine.gone) return Effect.sync(() => returned(engine, holding))
      // A logger that dies does not end the duty.
      return Effect.logWarning(`Lock "${holding.key}" is not given back yet: ${error.message}`).pipe(
        Effect.ignoreCause,
        Effect.andThen(engine.asked(() => Effect.sleep(retryIn))),
        Effect.andThen(
          Effect.suspend(() => sendRelease(engine, holding, wasHeld, Math.min(retryIn * 2, longestRetry)))
        )
      )
    }
  })
}

/** A backend that dies has not answered either. */
const releaseError = (engine: Engine, cause: Cause.Cause<LockBackendError>): LockBackendError =>
  Option.getOrElse(Cause.findErrorOption(cause), () =>
    new LockBackendError({
      backend: engine.backend.name,
      operation: "release",
      reason: "Protocol",
      cause: Cause.squash(cause)
    }))

const returned = (engine: Engine, holding: Holding): void => {
  holding.duty = "done"
  holding.place?.leave()
  holding.tellReturned()
  engine.forget(holding)
}

/** Waits until the lease is given back; `false`: not within the limit, in milliseconds. */
const awaitReturn = (engine: Engine, holding: Holding, limit: number): Effect.Effect<boolean> =>
  Effect.callback<boolean>((resume) => {
    if (holding.duty === "done") return resume(Effect.succeed(true))
    if (engine.gone && limit !== Number.POSITIVE_INFINITY) return resume(Effect.succeed(false))
    const timer = new Timer(() => resume(Effect.succeed(false)))
    holding.onReturned(() => {
      engine.watchdog.clear(timer)
      resume(Effect.succeed(true))
    })
    if (limit !== Number.POSITIVE_INFINITY) engine.watchdog.set(timer, engine.watchdog.now() + limit)
  })

/** Gives back in the background of the layer, and waits a little for it. */
export const release = (engine: Engine, holding: Holding): Effect.Effect<void, LockBackendError> =>
  Effect.uninterruptible(Effect.suspend(() => {
    if (holding.duty === "owed") engine.runFork(giveBack(engine, holding))
    if (holding.duty === "done") return Effect.void
    return Effect.flatMap(awaitReturn(engine, holding, longestGoodbye), (done) =>
      done ? Effect.void : Effect.fail(
        holding.releaseError ??
          new LockBackendError({ backend: engine.backend.name, operation: "release", reason: "Timeout" })
      ))
  }))
