/**
 * What `Lock` does over any `LockBackend`: who asks when, what is believed, and the duty to give back.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Grant, LockBackend } from "../LockBackend.ts"
import { LockBackendError, LockUnavailable } from "../LockError.ts"
import { type Call, longestGoodbye } from "./call.ts"
import { Holding } from "./holding.ts"
import { enter, type Line, type Place } from "./line.ts"
import type { Plan } from "./plan.ts"
import { debug, Telemetry } from "./telemetry.ts"
import { Alarm, Watchdog } from "./watchdog.ts"

const firstRetry = 50
const longestRetry = 1000
/** The default command timeout of every backend. */
const longestAnswer = 5000

/** How a key is asked for: once, in line, or once and again on a schedule. */
export type Mode = "try" | "wait" | "retry"

/** What asking for a key comes to when the backend answers. */
export type Taken = Holding | LockUnavailable

class Timer extends Alarm {
  readonly ring: () => void
  constructor(ring: () => void) {
    super()
    this.ring = ring
  }
}

export class Engine {
  readonly backend: LockBackend["Service"]
  readonly watchdog: Watchdog
  readonly telemetry: Telemetry
  /** The layer is closing: nothing is taken any more. */
  closed = false
  /** The layer is closed: nobody keeps the time any more, so nobody is to wait. */
  gone = false
  private readonly context: Context.Context<never>
  private readonly lines = new Map<string, Line>()
  /** Every attempt from its first request until it is known that it holds nothing, or is given back. */
  private readonly live = new Set<Holding>()
  private onIdle: (() => void) | undefined

  constructor(backend: LockBackend["Service"], clock: Clock.Clock, context: Context.Context<never>) {
    this.backend = backend
    this.context = context
    this.watchdog = new Watchdog(clock)
    this.telemetry = new Telemetry(backend.name, context)
  }

  /** Runs in the background of the layer, with the context of the layer. */
  runFork<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return Effect.runForkWith(this.context)(effect)
  }

  /**
   * The backend tells its times by the clock of the layer, also where the caller has another one. A verb that throws is
   * a defect like any other.
   */
  asked<A, E>(verb: () => Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.withFiber((fiber) =>
      fiber.getRef(Clock.Clock) === this.watchdog.clock
        ? verb()
        : Effect.provideService(Effect.suspend(verb), Clock.Clock, this.watchdog.clock)
    )
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Taking. All of this runs uninterruptibly, but for the waits.
  // -------------------------------------------------------------------------------------------------------------------

  take<A, E>(call: Call<A, E | LockBackendError>, plan: Plan, mode: Mode): Effect.Effect<Taken, LockBackendError> {
    const { retry } = plan
    if (mode !== "retry" || retry === undefined) return this.takeOnce(call, plan, mode === "wait")
    // Only "held" is tried again; the backend's errors leave the schedule as values.
    const attempt: Effect.Effect<Holding | LockBackendError, LockUnavailable> = Effect.matchEffect(
      Effect.uninterruptible(this.takeOnce(call, plan, false)),
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

  private takeOnce<A, E>(
    call: Call<A, E | LockBackendError>,
    plan: Plan,
    wait: boolean
  ): Effect.Effect<Taken, LockBackendError> {
    return Effect.suspend(() => {
      const place = enter(this.lines, call.key, wait)
      if (place === undefined) return this.held(call.key)
      if (place.state === "head") return this.attempt(call, plan, place, wait)
      return Effect.matchCauseEffect(Effect.interruptible(place.awaitTurn), {
        onFailure: (cause) => {
          place.leave()
          return Effect.failCause(cause)
        },
        onSuccess: () => this.attempt(call, plan, place, wait)
      })
    })
  }

  private held(key: string): Effect.Effect<LockUnavailable> {
    return Effect.succeed(new LockUnavailable({ key, reason: "held" }))
  }

  /** One attempt with an owner of its own, at the head of the local line. */
  private attempt<A, E>(
    call: Call<A, E | LockBackendError>,
    plan: Plan,
    place: Place,
    wait: boolean
  ): Effect.Effect<Taken, LockBackendError> {
    return Effect.suspend(() => {
      if (this.closed) {
        place.leave()
        return Effect.fail(this.closedError)
      }
      const holding = new Holding(this, call.key, plan, place)
      holding.section = call
      this.live.add(holding)
      const answer = this.asked<Option.Option<Grant>, LockBackendError>(() =>
        wait ? Effect.asSome(this.backend.acquire(holding)) : this.backend.tryAcquire(holding)
      )
      return Effect.matchCauseEffect(Effect.interruptible(answer), {
        onFailure: (cause) => this.withdraw(call, holding, cause),
        onSuccess: (grant) => {
          if (Option.isNone(grant)) {
            place.leave()
            this.forget(holding)
            return this.held(call.key)
          }
          const now = this.watchdog.now()
          holding.granted(grant.value, now)
          return holding.stale(now) || holding.doubtful
            ? this.confirm(call, holding, wait)
            : this.believe(call, holding, wait)
        }
      })
    })
  }

  /** A late answer out of a dead network must never start a critical section: one renewal is answered first. */
  private confirm<A, E>(
    call: Call<A, E | LockBackendError>,
    holding: Holding,
    wait: boolean
  ): Effect.Effect<Taken, LockBackendError> {
    const skew = this.watchdog.wallSkew()
    return Effect.matchCauseEffect(Effect.interruptible(this.asked(() => this.backend.renew(holding))), {
      onFailure: (cause) => this.withdraw(call, holding, cause),
      onSuccess: (validity) => {
        if (Option.isNone(validity)) return this.startOver(call, holding, wait)
        holding.extend(validity.value, skew)
        return holding.doubtful ? this.confirm(call, holding, wait) : this.believe(call, holding, wait)
      }
    })
  }

  private believe<A, E>(
    call: Call<A, E | LockBackendError>,
    holding: Holding,
    wait: boolean
  ): Effect.Effect<Taken, LockBackendError> {
    const now = this.watchdog.now()
    if (!holding.hold(now)) return this.startOver(call, holding, wait)
    call.granted(holding, now)
    return debug(() => `Lock "${holding.key}" is held by ${holding.owner}`, Effect.succeed(holding))
  }

  /** What was granted is over already. A waiter keeps its place in the local line for the next attempt. */
  private startOver<A, E>(
    call: Call<A, E | LockBackendError>,
    holding: Holding,
    wait: boolean
  ): Effect.Effect<Taken, LockBackendError> {
    const { place, plan } = holding
    if (wait) holding.place = undefined
    this.runFork(this.giveBack(holding))
    return wait && place !== undefined ? this.attempt(call, plan, place, wait) : this.held(call.key)
  }

  /** The attempt failed or was interrupted: its outcome is unknown, so it is given back. */
  private withdraw<A, E>(
    call: Call<A, E | LockBackendError>,
    holding: Holding,
    cause: Cause.Cause<LockBackendError>
  ): Effect.Effect<never, LockBackendError> {
    // Closing the layer interrupts those who ask.
    const reply = this.closed && Cause.hasInterruptsOnly(cause) ? Cause.fail(this.closedError) : cause
    const error = Cause.findErrorOption(reply)
    if (Option.isSome(error)) {
      const { reason } = error.value
      if (reason === "Unreachable" || reason === "Timeout") holding.place?.failAll(error.value)
      call.answer(Exit.failCause(reply))
    } else {
      call.returning(Exit.failCause(reply))
    }
    holding.unknown(this.watchdog.now())
    return Effect.flatMap(this.giveBack(holding), () => Effect.failCause(reply))
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Giving back
  // -------------------------------------------------------------------------------------------------------------------

  /** The whole duty, until the backend has answered or has nothing left to give back. */
  giveBack(holding: Holding): Effect.Effect<void> {
    return Effect.uninterruptible(Effect.suspend(() => {
      if (holding.duty !== "owed") return Effect.asVoid(this.awaitReturn(holding, Number.POSITIVE_INFINITY))
      holding.duty = "running"
      this.live.add(holding)
      const wasHeld = holding.stop()
      const renewal = holding.renewalInFlight
      if (renewal === undefined) return this.sendRelease(holding, wasHeld, firstRetry)
      // Renew never re-creates, so going on without its answer is safe.
      const answered = this.asked(() => Effect.raceFirst(Fiber.await(renewal), Effect.sleep(longestAnswer)))
      return Effect.flatMap(answered, () => this.sendRelease(holding, wasHeld, firstRetry))
    }))
  }

  private sendRelease(holding: Holding, wasHeld: boolean, retryIn: number): Effect.Effect<void> {
    if (retryIn === firstRetry && holding.state !== "lost") holding.place?.handOn()
    return Effect.matchCauseEffect(this.asked(() => this.backend.release(holding)), {
      onSuccess: (ours) => {
        // The second answer to a release that was sent twice is "not ours", though it was.
        if (!ours && wasHeld && retryIn === firstRetry) this.telemetry.releasedLate()
        return debug(() => `Lock "${holding.key}" is given back by ${holding.owner}`, this.returned(holding))
      },
      onFailure: (cause) => {
        this.telemetry.releaseFailed()
        holding.place?.leave()
        holding.releaseError = this.releaseError(cause)
        const over = this.backend.tenure === "lease" && holding.ended(this.watchdog.now())
        if (over || this.gone) return this.returned(holding)
        const message = `Lock "${holding.key}" is not given back yet: ${holding.releaseError.message}`
        return Effect.logWarning(message).pipe(
          Effect.andThen(this.asked(() => Effect.sleep(retryIn))),
          Effect.andThen(Effect.suspend(() => this.sendRelease(holding, wasHeld, Math.min(retryIn * 2, longestRetry))))
        )
      }
    })
  }

  /** A backend that dies has not answered either. */
  private releaseError(cause: Cause.Cause<LockBackendError>): LockBackendError {
    return Option.getOrElse(Cause.findErrorOption(cause), () =>
      new LockBackendError({
        backend: this.backend.name,
        operation: "release",
        reason: "Protocol",
        cause: Cause.squash(cause)
      }))
  }

  private returned(holding: Holding): Effect.Effect<void> {
    return Effect.sync(() => {
      holding.duty = "done"
      holding.place?.leave()
      holding.tellReturned()
      this.forget(holding)
    })
  }

  private forget(holding: Holding): void {
    this.live.delete(holding)
    if (this.live.size === 0) this.onIdle?.()
  }

  /** Waits until the lease is given back; `false`: not within the limit, in milliseconds. */
  private awaitReturn(holding: Holding, limit: number): Effect.Effect<boolean> {
    return Effect.callback<boolean>((resume) => {
      if (holding.duty === "done") return resume(Effect.succeed(true))
      if (this.gone && limit !== Number.POSITIVE_INFINITY) return resume(Effect.succeed(false))
      const timer = new Timer(() => resume(Effect.succeed(false)))
      holding.onReturned(() => {
        this.watchdog.clear(timer)
        resume(Effect.succeed(true))
      })
      if (limit !== Number.POSITIVE_INFINITY) this.watchdog.set(timer, this.watchdog.now() + limit)
    })
  }

  /** Gives back in the background of the layer, and waits a little for it. */
  release(holding: Holding): Effect.Effect<void, LockBackendError> {
    return Effect.uninterruptible(Effect.suspend(() => {
      if (holding.duty === "owed") this.runFork(this.giveBack(holding))
      return Effect.flatMap(this.awaitReturn(holding, longestGoodbye), (done) =>
        done ? Effect.void : Effect.fail(
          holding.releaseError ??
            new LockBackendError({ backend: this.backend.name, operation: "release", reason: "Timeout" })
        ))
    }))
  }

  // -------------------------------------------------------------------------------------------------------------------
  // The layer
  // -------------------------------------------------------------------------------------------------------------------

  private get closedError(): LockBackendError {
    return new LockBackendError({
      backend: this.backend.name,
      operation: "acquire",
      reason: "Unreachable",
      detail: "the Lock layer is closed"
    })
  }

  /** The machine slept: whether its leases outlived that is asked now. */
  readonly onSlept = (): void => {
    for (const holding of this.live) {
      if (holding.doubtful) holding.startRenewal()
    }
  }

  /** Ends what is asked for and what is held, and waits a little until it is given back. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.closed = true
    for (const line of this.lines.values()) line.failQueued(this.closedError)
    for (const holding of this.live) {
      if (holding.state === "asking") holding.section?.interrupt()
      holding.lose("session")
      if (holding.section === undefined && holding.duty === "owed") this.runFork(this.giveBack(holding))
    }
    const idle = Effect.callback<void>((resume) => {
      this.onIdle = () => resume(Effect.void)
      if (this.live.size === 0) return this.onIdle()
      this.watchdog.set(new Timer(this.onIdle), this.watchdog.now() + longestGoodbye)
    })
    return Effect.map(idle, () => {
      this.gone = true
      this.watchdog.ringAll()
    })
  })
}
