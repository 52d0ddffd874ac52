/**
 * The state of one attempt to hold a key, from the asking to the giving back: when it was last confirmed, when it is to
 * be renewed, when it ends. Taking and giving back are in `taking.ts` and `givingBack.ts`.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Lease } from "../Lease.ts"
import type { Grant, LockRequest, Validity } from "../LockBackend.ts"
import { type LockBackendError, LockLost, type LossReason } from "../LockError.ts"
import type { Engine } from "./engine.ts"
import { giveBack, release } from "./givingBack.ts"
import type { Place } from "./line.ts"
import type { Plan } from "./plan.ts"
import { Term } from "./term.ts"
import * as uuid from "./uuid.ts"

export const firstRetry = 100

export class Holding extends Term implements LockRequest, Lease {
  readonly key: string
  readonly owner: string
  readonly plan: Plan
  place: Place | undefined
  fencingToken = 0n
  /** `asking`: no grant is known. `returned`: given back, or about to be. */
  state: "asking" | "held" | "lost" | "returned" = "asking"
  /** Why it was lost; while asking: that it was lost before the grant was known. */
  reason: LossReason | undefined
  /** Who gives it back: nobody yet, somebody, or it is done. */
  duty: "owed" | "running" | "done" = "owed"
  /** The error of the latest release that failed. */
  releaseError: LockBackendError | undefined
  /** Who asks for this lease, and then runs under it: interrupted when it is lost. */
  section: { interrupt(): void } | undefined
  private readonly engine: Engine
  private renewing: Fiber.Fiber<void> | undefined
  private failures = 0
  private since = 0
  private watchers: Set<() => void> | undefined
  private returnWaiters: Array<() => void> | undefined

  constructor(engine: Engine, key: string, plan: Plan, place: Place | undefined, now: number) {
    super(engine.watchdog, now)
    this.engine = engine
    this.key = key
    this.plan = plan
    this.place = place
    this.owner = `${plan.label}/${uuid.make()}`
  }

  get ttl(): Duration.Duration {
    return this.plan.ttl
  }

  get backend(): string {
    return this.engine.backend.name
  }

  // The section is interrupted outside of the backend's own loop over its leases. Not a field: most are never called.
  get onLost(): (reason: LossReason) => void {
    return (reason) => queueMicrotask(() => this.lose(reason))
  }

  /** The earlier of the deadline and the longest hold. */
  private get limit(): number {
    return Math.min(this.deadline, this.since + this.plan.maxHold)
  }

  /** The grant is known, but not yet believed. */
  granted(grant: Grant, now: number): void {
    this.since = now
    this.fencingToken = grant.fencingToken
    this.extend(grant)
  }

  /** The grant is believed. `false`: it is over already. */
  hold(now: number): boolean {
    if (this.reason !== undefined || now >= this.deadline || this.engine.closed) return false
    this.state = "held"
    this.since = now
    this.schedule(now)
    return true
  }

  /** A renewal that was sent when the wall clock was `skew` ahead has been answered. */
  extend(validity: Validity, skew?: number): void {
    if (this.confirmed(validity, skew) && validity.fencingToken !== undefined) this.fencingToken = validity.fencingToken
  }

  /** The chosen time between renewals, where the ttl that was really given leaves room for it and for an answer. */
  private get renewEvery(): number {
    const { renewEvery } = this.plan
    return renewEvery === Number.POSITIVE_INFINITY || (renewEvery !== undefined && renewEvery < this.ttlGiven * 0.9)
      ? renewEvery
      : this.ttlGiven / 3
  }

  private schedule(now: number): void {
    const every = this.renewEvery
    const due = Math.max(this.validFrom + every, now + every / 4)
    this.slack = due < this.limit ? every / 32 : 0
    this.watchdog.set(this, Math.min(due, this.limit))
  }

  override ring(now: number): void {
    if (this.state === "lost") this.engine.runFork(giveBack(this.engine, this))
    else if (this.check(now)) this.startRenewal()
  }

  /** Reads the deadline: `false` when the lease is not held, or no longer. */
  check(now: number): boolean {
    if (this.state === "held" && now >= this.limit) this.lose(now >= this.deadline ? "expired" : "maxHold")
    return this.state === "held"
  }

  startRenewal(): void {
    if (this.state !== "held") return
    this.doubt(this.watchdog.now())
    // Until it is answered, the next that happens to the lease is its end.
    this.slack = 0
    this.watchdog.set(this, this.limit)
    if (this.renewing !== undefined) return
    const fiber = this.engine.runFork(Effect.catchCause(this.askRenewal, (cause) => {
      const error = Cause.findErrorOption(cause)
      const message = `Lock "${this.key}" is not renewed yet`
      return Option.isSome(error)
        ? Effect.logWarning(`${message}: ${error.value.message}`)
        : Effect.logWarning(message, cause)
    }))
    if (fiber.pollUnsafe() !== undefined) return
    this.renewing = fiber
    fiber.addObserver(() => this.renewing = undefined)
  }

  /** Asks the backend for another ttl, and takes in the answer. */
  get askRenewal(): Effect.Effect<void, LockBackendError> {
    return Effect.suspend(() => {
      const skew = this.watchdog.wallSkew()
      const now = this.watchdog.now()
      this.doubt(now)
      this.unknown(now)
      return Effect.flatMap(
        Effect.exit(this.engine.asked(() => this.engine.backend.renew(this))),
        (exit) => this.renewed(exit, skew)
      )
    })
  }

  /** Asks until the answer is not from before the machine slept. */
  makeSure(): Effect.Effect<void, LockBackendError> {
    return Effect.flatMap(this.askRenewal, () =>
      this.state === "held" && this.isDoubtful(this.watchdog.now())
        ? Effect.andThen(this.engine.asked(() => Effect.sleep(firstRetry)), Effect.suspend(() => this.makeSure()))
        : Effect.void)
  }

  private renewed(
    exit: Exit.Exit<Option.Option<Validity>, LockBackendError>,
    skew: number
  ): Effect.Effect<void, LockBackendError> {
    if (this.state !== "held") return Effect.void
    const now = this.watchdog.now()
    if (exit._tag === "Failure") {
      this.engine.telemetry.renewal("failed")
      // A lease that is not to be renewed by itself is only asked for again when it must be confirmed.
      if (this.renewEvery !== Number.POSITIVE_INFINITY || this.isDoubtful(now)) this.askAgain(now)
      return Effect.failCause(exit.cause)
    }
    if (Option.isNone(exit.value)) {
      this.engine.telemetry.renewal("refused")
      this.lose("taken")
      return Effect.void
    }
    this.failures = 0
    this.engine.telemetry.renewal("renewed")
    this.extend(exit.value.value, skew)
    if (!this.check(now)) return Effect.void
    // The machine slept, and the answer is from before.
    if (this.isDoubtful(now)) this.askAgain(now)
    else this.schedule(now)
    return Effect.void
  }

  private askAgain(now: number): void {
    const backoff = firstRetry * 2 ** Math.min(this.failures++, 10)
    this.slack = 0
    this.watchdog.set(this, Math.min(now + Math.min(backoff, this.ttlGiven / 10), this.limit))
  }

  lose(reason: LossReason): void {
    if (this.state === "asking") this.reason ??= reason
    if (this.state !== "held") return
    const now = this.watchdog.now()
    this.state = "lost"
    this.reason = reason
    this.slack = 0
    this.engine.telemetry.lost(reason)
    this.engine.telemetry.ended(now - this.since)
    this.engine.runFork(Effect.logError(this.lossError.message))
    // The section is given the time until the backend lets go of the key by itself to close what it opened.
    this.watchdog.set(this, this.validFrom + this.ttlGiven)
    this.section?.interrupt()
    for (const watcher of this.watchers ?? []) watcher()
  }

  /** Takes the lease out of the watchdog's hands; nothing is renewed from here on. `true`: it was held. */
  stop(): boolean {
    const wasHeld = this.state === "held"
    this.watchdog.clear(this)
    if (wasHeld) this.engine.telemetry.ended(this.watchdog.now() - this.since)
    if (this.state !== "lost") this.state = "returned"
    return wasHeld
  }

  onReturned(waiter: () => void): void {
    this.returnWaiters ??= []
    this.returnWaiters.push(waiter)
  }

  tellReturned(): void {
    for (const waiter of this.returnWaiters ?? []) waiter()
  }

  /** The renewal in flight, which the release must not overtake. */
  get renewalInFlight(): Fiber.Fiber<void> | undefined {
    return this.renewing
  }

  /** The answer to a request is not known. */
  unknown(now: number): void {
    this.unanswered(now, Duration.toMillis(this.ttl))
  }

  get lossError(): LockLost {
    return new LockLost({
      key: this.key,
      owner: this.owner,
      fencingToken: this.fencingToken,
      reason: this.reason ?? "taken"
    })
  }

  get lost(): Effect.Effect<never, LockLost> {
    return Effect.callback<never, LockLost>((resume) => {
      const watcher = () => resume(Effect.fail(this.lossError))
      if (this.state === "lost") return watcher()
      if (this.state !== "held") return
      this.watchers ??= new Set()
      this.watchers.add(watcher)
      return Effect.sync(() => this.watchers?.delete(watcher))
    })
  }

  get isHeld(): Effect.Effect<boolean> {
    return Effect.sync(() => this.isCertain(this.watchdog.now()))
  }

  get remaining(): Effect.Effect<Duration.Duration> {
    return Effect.sync(() => {
      const now = this.watchdog.now()
      return this.isCertain(now) ? Duration.millis(this.limit - now) : Duration.zero
    })
  }

  private isCertain(now: number): boolean {
    return this.check(now) && !this.isDoubtful(now)
  }

  get renew(): Effect.Effect<void, LockLost | LockBackendError> {
    return Effect.flatMap(
      Effect.suspend(() => this.check(this.watchdog.now()) ? this.askRenewal : Effect.void),
      () => this.state === "held" ? Effect.void : Effect.fail(this.lossError)
    )
  }

  get release(): Effect.Effect<void, LockBackendError> {
    return release(this.engine, this)
  }
}
