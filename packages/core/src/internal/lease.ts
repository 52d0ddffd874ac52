/**
 * A lease: what one section or one scope works under. It uses a hold, alone, with a fencing token of its own.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { type LockBackendError, LockLost, type LossReason } from "../LockError.ts"
import { type Hold, limitOf, type Tenant } from "./hold.ts"
import type { Plan } from "./options.ts"
import { awaitRelease, startRelease } from "./release.ts"
import { check, confirmed, renewNow } from "./renewal.ts"

/** Which fiber took a lease into which scope: it would wait for itself. */
export interface Taker {
  readonly fiber: number
  readonly scope: unknown
}

export class Lease implements Tenant {
  readonly hold: Hold
  readonly plan: Plan
  readonly token: bigint
  readonly taker: Taker | undefined
  readonly since: number
  state: "held" | "lost" | "ended" = "held"
  reason: LossReason | undefined
  /** The section around this one. */
  outer: Lease | undefined
  /** What runs under it, and is interrupted when it is lost: the section, and what `guard` runs; and what is told. */
  private worker: Fiber.Fiber<unknown, unknown> | undefined
  private others: Set<Fiber.Fiber<unknown, unknown> | (() => void)> | undefined

  constructor(hold: Hold, plan: Plan, taker: Taker | undefined, now: number) {
    this.hold = hold
    this.plan = plan
    this.taker = taker
    this.since = now
    this.token = hold.nextToken
    if (--hold.tokensLeft > 0) hold.nextToken += 1n
    hold.tenant = this
    hold.maxEnd = plan.maxHold === Number.POSITIVE_INFINITY ? undefined : hold.since + plan.maxHold
  }

  get isSection(): boolean {
    return this.taker === undefined
  }

  get keepsUntil(): number {
    return this.plan.minHold > 0 ? this.since + this.plan.minHold : 0
  }

  /** Reads the deadline. */
  isHeld(): boolean {
    return this.state === "held" && check(this.hold, this.hold.layer.watchdog.look())
  }

  lose(reason: LossReason, now: number): void {
    if (this.state !== "held") return
    this.state = "lost"
    this.reason = reason
    this.hold.layer.telemetry.ended(now - this.since)
    tellLoss(this, reason)
    this.worker?.interruptUnsafe()
    for (const other of this.others ?? []) {
      if (typeof other === "function") other()
      else other.interruptUnsafe()
    }
  }

  addWorker(fiber: Fiber.Fiber<unknown, unknown>): void {
    // It may have been lost in the first step of the work.
    if (this.state === "lost") fiber.interruptUnsafe()
    else if (this.worker === undefined) this.worker = fiber
    else (this.others ??= new Set()).add(fiber)
  }

  removeWorker(fiber: Fiber.Fiber<unknown, unknown> | undefined): void {
    if (this.worker === fiber) this.worker = undefined
    else if (fiber !== undefined) this.others?.delete(fiber)
  }

  /** Calls back when the lease is lost, until what it returns is called. */
  onLoss(watcher: () => void): () => void {
    const others = this.others ??= new Set()
    others.add(watcher)
    return () => others.delete(watcher)
  }
}

const tellLoss = (lease: Lease, reason: LossReason): void => {
  const { layer } = lease.hold
  if (reason === "closed") {
    layer.fork(Effect.logDebug(lossOf(lease, reason).message))
  } else {
    layer.telemetry.lost(reason)
    layer.fork(Effect.logError(lossOf(lease, reason).message))
  }
}

/** The error that tells of the loss. A lease that was released fails as `closed`. */
export const lossOf = (lease: Lease, reason: LossReason = lease.reason ?? "closed"): LockLost =>
  new LockLost({ key: lease.hold.request.key, owner: lease.hold.request.owner, fencingToken: lease.token, reason })

/**
 * Ends the lease, whatever became of it, and waits a little for the release. Answers with the loss, if it was lost before
 * its end. Must run uninterruptibly.
 */
export const end = (lease: Lease, options: { readonly byHand: boolean }): Effect.Effect<LockLost | undefined> =>
  Effect.suspend(() => {
    const { hold } = lease
    const now = hold.layer.watchdog.look()
    return lease.state === "held" && check(hold, now) && !hold.certain
      ? Effect.flatMap(confirmed(hold), () => conclude(lease, options.byHand))
      : conclude(lease, options.byHand)
  })

const conclude = (lease: Lease, byHand: boolean): Effect.Effect<LockLost | undefined> => {
  const { hold } = lease
  const now = hold.layer.watchdog.now()
  check(hold, now)
  if (lease.state === "lost") {
    if (byHand) hold.keptUntil = 0
    startRelease(hold)
    return Effect.as(awaitRelease(hold), lossOf(lease))
  }
  const isLast = lease.state === "held"
  if (isLast) leave(lease, byHand, now)
  if (hold.state === "held") return Effect.undefined
  return Effect.map(awaitRelease(hold), () => isLast && hold.wasTaken ? takenAtRelease(lease) : undefined)
}

/** The hold goes to the next lease, is kept, or is released. */
const leave = (lease: Lease, byHand: boolean, now: number): void => {
  const { hold, plan, since } = lease
  lease.state = "ended"
  hold.layer.telemetry.ended(now - since)
  hold.tenant = undefined
  hold.maxEnd = undefined
  if (!byHand) hold.keptUntil = lease.keepsUntil
  hold.lingerFor = byHand ? 0 : plan.linger
  hold.keeper.next(hold)
}

const takenAtRelease = (lease: Lease): LockLost => {
  tellLoss(lease, "taken")
  return lossOf(lease, "taken")
}

/** The time to the deadline; zero when it is not held, or not confirmed since the machine slept. */
export const remaining = (lease: Lease): number =>
  lease.isHeld() && lease.hold.certain ? limitOf(lease.hold) - lease.hold.layer.watchdog.now() : 0

export const renew = (lease: Lease): Effect.Effect<void, LockLost | LockBackendError> =>
  Effect.andThen(
    Effect.suspend(() => lease.isHeld() ? renewNow(lease.hold) : Effect.void),
    Effect.suspend(() => lease.state === "held" ? Effect.void : Effect.fail(lossOf(lease)))
  )

/** Releases by hand. A lease that was lost before has nothing to release. */
export const release = (lease: Lease): Effect.Effect<void, LockLost | LockBackendError> =>
  Effect.uninterruptible(Effect.suspend(() => {
    const wasHeld = lease.state === "held"
    return Effect.flatMap(end(lease, { byHand: true }), (loss): Effect.Effect<void, LockLost | LockBackendError> => {
      const { hold } = lease
      if (loss !== undefined && wasHeld && loss.reason === "taken") return Effect.fail(loss)
      if (hold.state !== "releasing") return Effect.void
      return Effect.fail(
        hold.releaseError ?? hold.layer.error("release", "Timeout", "the release goes on in the background")
      )
    })
  }))

/** Fails when the lease is lost, never completes otherwise. */
export const lost = (lease: Lease): Effect.Effect<never, LockLost> =>
  Effect.callback<never, LockLost>((resume) => {
    if (lease.state === "lost") return resume(Effect.fail(lossOf(lease)))
    if (lease.state === "ended") return
    const stop = lease.onLoss(() => resume(Effect.fail(lossOf(lease))))
    return Effect.sync(stop)
  })
