/**
 * The duty that ends every request: nothing of it may stay held or queued. It is over only when the backend has answered,
 * or has let go by itself.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { LockBackendError } from "../LockError.ts"
import { type Hold, isKept } from "./hold.ts"
import { debug } from "./telemetry.ts"
import { Timer } from "./watchdog.ts"

const firstReleaseRetry = 50
const longestReleaseRetry = 1000
/** The default command timeout of every backend. */
const longestAnswer = 5000
/** How long a caller waits for a release. */
export const longestRelease = 1000

/** No waiter wants the outcome of the asking any more. */
export const withdraw = (hold: Hold): void => {
  hold.withdrawn = true
  hold.asker?.interruptUnsafe()
}

/** Releases in the background, and tries again until it is answered, or the backend has let go by itself. */
export const startRelease = (hold: Hold): void => {
  const { layer, state } = hold
  if (state === "releasing" || state === "done") return
  if (layer.closed && layer.backend.freedBy === "ttl" && isKept(hold, layer.watchdog.now())) return leaveToEnd(hold)
  hold.state = "releasing"
  hold.layer.watchdog.clear(hold)
  hold.layer.fork(Effect.suspend(() => {
    const { renewal } = hold
    // The next may ask right behind the release, but what was lost is free only when the release is answered.
    const send = Effect.suspend(() => {
      if (state !== "lost") hold.keeper.freed(hold)
      return sendRelease(hold, state === "held", firstReleaseRetry)
    })
    // Renew never re-creates, so going on without its answer is safe.
    return renewal === undefined
      ? send
      : Effect.andThen(answered(renewal), send)
  }))
}

/** The answer to a renewal, or the time that it may take. */
const answered = (renewal: Fiber.Fiber<void, LockBackendError>): Effect.Effect<unknown> =>
  Effect.raceFirst(Fiber.await(renewal), Effect.sleep(longestAnswer))

/** `ours`: it is believed to be held, so that the first answer tells whether it was ours to the end. */
const sendRelease = (hold: Hold, ours: boolean, retryIn: number): Effect.Effect<void> => {
  const { layer, request } = hold
  return Effect.matchCauseEffect(Effect.suspend(() => layer.backend.release(request)), {
    onSuccess: (answer) => {
      if (answer === "gone" && ours) goneAtRelease(hold)
      released(hold)
      return debug(() => `Lock "${request.key}" is released by ${request.owner}`, Effect.void)
    },
    onFailure: (cause) => {
      layer.telemetry.releaseFailed()
      hold.keeper.freed(hold)
      const error = releaseError(hold, cause)
      hold.releaseError = error
      const over = layer.backend.freedBy === "ttl" && layer.watchdog.now() >= hold.endsAt
      if (over || layer.gone) return Effect.sync(() => released(hold))
      // A logger that dies does not end the duty. The answer to the second release proves nothing.
      return Effect.logWarning(`Lock "${request.key}" is not released yet: ${error.message}`).pipe(
        Effect.ignoreCause,
        Effect.andThen(Effect.sleep(retryIn)),
        Effect.andThen(Effect.suspend(() => sendRelease(hold, false, Math.min(retryIn * 2, longestReleaseRetry))))
      )
    }
  })
}

/** After the deadline it proves nothing: a slow release of a hold that ran out meanwhile. */
const goneAtRelease = (hold: Hold): void => {
  hold.layer.telemetry.releasedLate()
  hold.wasTaken = hold.layer.watchdog.look() < hold.deadline
}

/** A backend that dies has not answered either. */
const releaseError = (hold: Hold, cause: Cause.Cause<LockBackendError>): LockBackendError =>
  Option.getOrElse(Cause.findErrorOption(cause), () =>
    new LockBackendError({
      backend: hold.layer.backend.name,
      operation: "release",
      reason: "Protocol",
      cause: Cause.squash(cause)
    }))

/** Nothing of the request is held or queued any more. */
export const released = (hold: Hold): void => {
  hold.state = "done"
  hold.keeper.freed(hold)
  hold.changed()
  hold.layer.forget(hold)
}

/** The layer closes while the key is to stay taken: a last renewal makes it last, and its ttl ends it. */
const leaveToEnd = (hold: Hold): void => {
  const { layer, renewal, request } = hold
  const now = layer.watchdog.now()
  layer.watchdog.clear(hold)
  if (hold.keptUntil <= hold.deadline) return released(hold)
  hold.state = "releasing"
  request.ttl = Math.max(request.ttl, Math.ceil(hold.keptUntil - now))
  const last = Effect.ignoreCause(Effect.suspend(() => layer.backend.renew(request, { fresh: true })))
  layer.fork(Effect.andThen(
    renewal === undefined ? last : Effect.andThen(answered(renewal), last),
    Effect.sync(() => released(hold))
  ))
}

/** Waits until the hold is released; `false`: not within a second, or the layer is closed. */
export const awaitRelease = (hold: Hold): Effect.Effect<boolean> =>
  Effect.callback<boolean>((resume) => {
    const { watchdog } = hold.layer
    if (hold.state === "done") return resume(Effect.succeed(true))
    if (hold.layer.gone) return resume(Effect.succeed(false))
    const timer = new Timer(() => resume(Effect.succeed(false)))
    watchdog.set(timer, watchdog.now() + longestRelease)
    const wait = (): void => {
      if (hold.state !== "done") return hold.onChange(wait)
      watchdog.clear(timer)
      resume(Effect.succeed(true))
    }
    hold.onChange(wait)
  })
