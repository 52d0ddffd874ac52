/**
 * What a `Lock` layer tells of itself: metrics by backend and outcome, never by key.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import type { LossReason } from "../LockError.ts"

export type Outcome = "granted" | "held" | "timeout" | "reentry" | "failed" | "interrupted"
export type Renewal = "renewed" | "refused" | "failed"

// Compared by number: the comparisons of `LogLevel` cost a twentieth of a lock.
const debugLevel = LogLevel.getOrdinal("Debug")

/** A line for the ordinary, which is only written where somebody reads it, before what comes next. */
export const debug = <A>(message: () => string, next: Effect.Effect<A>): Effect.Effect<A> =>
  Effect.withFiber((fiber) =>
    LogLevel.getOrdinal(fiber.cache.minimumLogLevel) > debugLevel
      ? next
      : Effect.andThen(Effect.logDebug(message()), next)
  )

// Milliseconds, from a hand-over inside one process to an hour.
const boundaries = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000]

export class Telemetry {
  private readonly context: Context.Context<never>
  private readonly acquisitions: Record<Outcome, Metric.Counter<number>>
  private readonly renewals: Record<Renewal, Metric.Counter<number>>
  private readonly losses: Record<Exclude<LossReason, "closed">, Metric.Counter<number>>
  private readonly waitTime: Metric.Histogram<number>
  private readonly heldTime: Metric.Histogram<number>
  private readonly passes: Metric.Counter<number>
  private readonly heldNow: Metric.Gauge<number>
  private readonly lateReleases: Metric.Counter<number>
  private readonly failedReleases: Metric.Counter<number>

  constructor(backend: string, context: Context.Context<never>) {
    const counter = (name: string, description: string, attributes?: Record<string, string>) =>
      Metric.counter(name, { description, incremental: true, attributes: { backend, ...attributes } })
    const histogram = (name: string, description: string) =>
      Metric.histogram(name, { description, boundaries, attributes: { backend } })
    const acquisitions = (outcome: Outcome) =>
      counter("dlock_acquisitions", "Requests for a lock, by their outcome", { outcome })
    const renewals = (outcome: Renewal) =>
      counter("dlock_renewals", "Renewals of leases, by their outcome", { outcome })
    const losses = (reason: LossReason) => counter("dlock_losses", "Leases that ended while still wanted", { reason })
    // Each update reads both: where there is nothing else they are soon found.
    this.context = Context.make(Metric.MetricRegistry, Context.get(context, Metric.MetricRegistry)).pipe(
      Context.add(Metric.CurrentMetricAttributes, Context.get(context, Metric.CurrentMetricAttributes))
    )
    this.acquisitions = {
      granted: acquisitions("granted"),
      held: acquisitions("held"),
      timeout: acquisitions("timeout"),
      reentry: acquisitions("reentry"),
      failed: acquisitions("failed"),
      interrupted: acquisitions("interrupted")
    }
    this.renewals = { renewed: renewals("renewed"), refused: renewals("refused"), failed: renewals("failed") }
    this.losses = {
      expired: losses("expired"),
      taken: losses("taken"),
      session: losses("session"),
      maxHold: losses("maxHold")
    }
    this.passes = counter("dlock_passes", "Leases that were passed on within the process")
    this.waitTime = histogram("dlock_wait_time_millis", "From the request for a lock to its grant")
    this.heldTime = histogram("dlock_held_time_millis", "From the grant of a lock to its release or loss")
    this.heldNow = Metric.gauge("dlock_held", { description: "Leases held now", attributes: { backend } })
    this.lateReleases = counter("dlock_late_releases", "Releases of a lease that the backend had already ended")
    this.failedReleases = counter("dlock_failed_releases", "Attempts to release that were not answered")
  }

  granted(waited: number): void {
    this.acquisitions.granted.updateUnsafe(1, this.context)
    this.waitTime.updateUnsafe(waited, this.context)
    this.heldNow.modifyUnsafe(1, this.context)
  }

  refused(outcome: Exclude<Outcome, "granted">): void {
    this.acquisitions[outcome].updateUnsafe(1, this.context)
  }

  ended(held: number): void {
    this.heldTime.updateUnsafe(held, this.context)
    this.heldNow.modifyUnsafe(-1, this.context)
  }

  passed(): void {
    this.passes.updateUnsafe(1, this.context)
  }

  lost(reason: Exclude<LossReason, "closed">): void {
    this.losses[reason].updateUnsafe(1, this.context)
  }

  renewal(outcome: Renewal): void {
    this.renewals[outcome].updateUnsafe(1, this.context)
  }

  releasedLate(): void {
    this.lateReleases.updateUnsafe(1, this.context)
  }

  releaseFailed(): void {
    this.failedReleases.updateUnsafe(1, this.context)
  }
}
