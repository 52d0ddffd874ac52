/**
 * How a key is taken: who asks when, and what is believed. All of this runs uninterruptibly, but for the waits.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { Grant } from "../LockBackend.ts"
import { LockBackendError, LockUnavailable } from "../LockError.ts"
import type { Call } from "./call.ts"
import { giveBack } from "./givingBack.ts"
import { firstRetry, Holding } from "./holding.ts"
import { enter, type Place } from "./line.ts"
import type { Plan } from "./plan.ts"
import { debug } from "./telemetry.ts"

/** How a key is asked for: once, in line, or once and again on a schedule. */
export type Mode = "try" | "wait" | "retry"

/** What asking for a key comes to when the backend answers. */
export type Taken = Holding | LockUnavailable

type Taking = Effect.Effect<Taken, LockBackendError>

const held = (key: string): Effect.Effect<LockUnavailable> =>
  Effect.succeed(new LockUnavailable({ key, reason: "held" }))

/** Takes the place in line in this very step; what comes back must be run once. */
export const take = <A, E>(call: Call<A, E | LockBackendError>, plan: Plan, mode: Mode): Taking => {
  const { retry } = plan
  if (mode !== "retry" || retry === undefined) return takeOnce(call, plan, mode === "wait")
  // Only "held" is tried again; the backend's errors leave the schedule as values.
  const attempt: Effect.Effect<Holding | LockBackendError, LockUnavailable> = Effect.matchEffect(
    Effect.uninterruptible(Effect.suspend(() => takeOnce(call, plan, false))),
    {
      onFailure: (error) => Effect.succeed(error),
      onSuccess: (taken) => taken instanceof LockUnavailable ? Effect.fail(taken) : Effect.succeed(taken)
    }
  )
  return Effect.flatMap(
    Effect.interruptible(Effect.retryOrElse(attempt, retry, (error) => Effect.succeed(error))),
    (taken) => taken instanceof LockBackendError ? Effect.fail(taken) : Effect.succeed(taken)
  )
}

const takeOnce = <A, E>(call: Call<A, E | LockBackendError>, plan: Plan, wait: boolean): Taking => {
  const place = enter(call.engine.lines, call.key, wait)
  if (place === undefined) return held(call.key)
  if (place.state === "head") return attempt(call, plan, place, wait)
  return Effect.matchCauseEffect(Effect.interruptible(place.awaitTurn), {
    onFailure: (cause) => {
      place.leave()
      return Effect.failCause(cause)
    },
    onSuccess: (_) => attempt(call, plan, place, wait)
  })
}

/** One attempt with an owner of its own, at the head of the local line. */
const attempt = <A, E>(call: Call<A, E | LockBackendError>, plan: Plan, place: Place, wait: boolean): Taking => {
  const { engine } = call
  if (engine.closed) {
    place.leave()
    return Effect.fail(engine.closedError)
  }
  const holding = new Holding(engine, call.key, plan, place, engine.watchdog.now())
  holding.section = call
  engine.live.add(holding)
  const onFailure = (cause: Cause.Cause<LockBackendError>) => withdraw(call, holding, cause)
  return wait
    ? Effect.matchCauseEffect(Effect.interruptible(engine.asked(() => engine.backend.acquire(holding))), {
      onFailure,
      onSuccess: (grant) => granted(call, holding, grant, wait)
    })
    : Effect.matchCauseEffect(Effect.interruptible(engine.asked(() => engine.backend.tryAcquire(holding))), {
      onFailure,
      onSuccess: (grant) => {
        if (Option.isSome(grant)) return granted(call, holding, grant.value, wait)
        place.leave()
        engine.forget(holding)
        return held(call.key)
      }
    })
}

const granted = <A, E>(
  call: Call<A, E | LockBackendError>,
  holding: Holding,
  grant: Grant,
  wait: boolean
): Taking => {
  const now = call.engine.watchdog.now()
  holding.granted(grant, now)
  return holding.isStale(now) || holding.isDoubtful(now)
    ? confirm(call, holding, wait)
    : believe(call, holding, wait, now)
}

/** A late answer out of a dead network must never start a critical section: one renewal is answered first. */
const confirm = <A, E>(call: Call<A, E | LockBackendError>, holding: Holding, wait: boolean): Taking => {
  const { engine } = call
  const onFailure = (cause: Cause.Cause<LockBackendError>) => withdraw(call, holding, cause)
  const asked = engine.watchdog.now()
  const skew = engine.watchdog.wallSkew(asked)
  holding.doubt(asked)
  return Effect.matchCauseEffect(Effect.interruptible(engine.asked(() => engine.backend.renew(holding))), {
    onFailure,
    onSuccess: (validity) => {
      if (Option.isNone(validity)) return startOver(call, holding, wait)
      holding.extend(validity.value, skew)
      const now = engine.watchdog.now()
      if (!holding.isDoubtful(now)) return believe(call, holding, wait, now)
      // The machine slept, and the answer is from before.
      return Effect.matchCauseEffect(Effect.interruptible(engine.asked(() => Effect.sleep(firstRetry))), {
        onFailure,
        onSuccess: (_) => confirm(call, holding, wait)
      })
    }
  })
}

const believe = <A, E>(
  call: Call<A, E | LockBackendError>,
  holding: Holding,
  wait: boolean,
  now: number
): Taking => {
  if (!holding.hold(now)) return startOver(call, holding, wait)
  call.granted(holding, now)
  return debug(() => `Lock "${holding.key}" is held by ${holding.owner}`, Effect.succeed(holding))
}

/** What was granted is over already. A waiter keeps its place in the local line for the next attempt. */
const startOver = <A, E>(call: Call<A, E | LockBackendError>, holding: Holding, wait: boolean): Taking => {
  const { place, plan } = holding
  if (wait) holding.place = undefined
  call.engine.runFork(giveBack(call.engine, holding))
  return wait && place !== undefined ? attempt(call, plan, place, wait) : held(call.key)
}

/** The attempt failed or was interrupted: its outcome is unknown, so it is given back. */
const withdraw = <A, E>(
  call: Call<A, E | LockBackendError>,
  holding: Holding,
  cause: Cause.Cause<LockBackendError>
): Effect.Effect<never, LockBackendError> => {
  const { engine } = call
  // Closing the layer interrupts those who ask.
  const reply = engine.closed && Cause.hasInterruptsOnly(cause) ? Cause.fail(engine.closedError) : cause
  const error = Cause.findErrorOption(reply)
  if (Option.isSome(error)) {
    const { reason } = error.value
    if (reason === "Unreachable" || reason === "Timeout") holding.place?.failAll(error.value)
    call.answer(Exit.failCause(reply))
  } else {
    call.returning(Exit.failCause(reply))
  }
  holding.unknown(engine.watchdog.now())
  return Effect.flatMap(giveBack(engine, holding), (_) => Effect.failCause(reply))
}
