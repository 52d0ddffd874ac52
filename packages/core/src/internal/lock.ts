/**
 * The `Lock` service over a backend: `withLock` runs a program as a section under a lease, `acquire` hands the lease to a
 * scope. Both take it in the same way; see `line.ts`.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { hostname } from "node:os"
import { pid } from "node:process"
import type { Lease as PublicLease } from "../Lease.ts"
import type { Lock } from "../Lock.ts"
import type { LockBackend } from "../LockBackend.ts"
import { InvalidLockRequest, type LockBackendError, type LockLost, LockUnavailable } from "../LockError.ts"
import { ExposedLease, type Printed } from "./exposed.ts"
import { guard, run, withLoss } from "./guard.ts"
import { LockLayer } from "./layer.ts"
import * as leases from "./lease.ts"
import * as line from "./line.ts"
import * as options from "./options.ts"
import { longestRelease } from "./release.ts"
import { CurrentSection, held, optional, type ProgramOf, programOf, programProblem } from "./section.ts"
import { Timer } from "./watchdog.ts"

type Restore = Parameters<Parameters<typeof Effect.uninterruptibleMask>[0]>[0]
type Denied = InvalidLockRequest | LockUnavailable
type Refused = InvalidLockRequest | line.TakeError

/** An open layer, and what each call needs of it. */
export interface Locks {
  readonly layer: LockLayer
  readonly lines: line.Lines
  readonly defaults: options.Defaults
  readonly defaultPlan: options.Plan | string
  readonly label: string
}

/** Asking for a key inside its own section, or once more by the fiber that holds it in the same scope. */
const isReentry = (
  { layer, lines }: Locks,
  key: string,
  taker: leases.Taker,
  innermost: leases.Lease | undefined
): boolean => {
  for (let section = innermost; section !== undefined; section = section.outer) {
    if (section.hold.layer === layer && section.hold.request.key === key) return true
    // Sections that have ended are let go of on the way.
    section.outer = held(section.outer)
  }
  const lease = line.leaseOf(lines, key)
  return lease?.taker !== undefined && lease.taker.fiber === taker.fiber && lease.taker.scope === taker.scope
}

/** Checks a request before anything is sent. */
const check = (
  locks: Locks,
  key: string,
  given: options.Options | undefined,
  taker: leases.Taker,
  innermost: leases.Lease | undefined
): options.Plan | Denied => {
  const { backend, telemetry } = locks.layer
  const plan = given === undefined ? locks.defaultPlan : options.make(given, locks.defaults, locks.label)
  const problem = options.keyProblem(key) ?? (typeof plan === "string" ? plan : backend.check(key, plan.ttl))
  if (typeof plan === "string" || problem !== undefined) {
    return new InvalidLockRequest({ key: String(key), problem: String(problem) })
  }
  if (!isReentry(locks, key, taker, innermost)) return plan
  telemetry.refused("reentry")
  return new LockUnavailable({ key, reason: "reentry" })
}

/** Takes a lease: once, in line, or again and again on a schedule. Without a taker it is a section's. Must run uninterruptibly. */
const take = (
  { layer, lines }: Locks,
  key: string,
  plan: options.Plan,
  taker: leases.Taker | undefined,
  waits: boolean,
  restore: Restore
): Effect.Effect<leases.Lease, line.TakeError> => {
  const { retry, timeout } = plan
  // For the answer to one attempt the backend has its own limit.
  const isOnce = !waits || timeout === 0
  const until = isOnce || timeout === Number.POSITIVE_INFINITY
    ? Number.POSITIVE_INFINITY
    : layer.watchdog.now() + timeout
  const ask: line.Ask = { key, plan, waits: !isOnce && retry === undefined, taker, until }
  return isOnce || retry === undefined
    ? line.take(lines, ask, restore)
    : takeOnSchedule(layer, lines, ask, retry, restore)
}

const takeOnSchedule = (
  layer: LockLayer,
  lines: line.Lines,
  ask: line.Ask,
  retry: NonNullable<options.Plan["retry"]>,
  restore: Restore
): Effect.Effect<leases.Lease, line.TakeError> => {
  let taken: leases.Lease | undefined
  // Only "held" is tried again; other errors leave the schedule as values.
  const attempt: Effect.Effect<leases.Lease | line.TakeError, LockUnavailable> = Effect.matchEffect(
    Effect.uninterruptible(Effect.suspend(() => line.take(lines, ask, restore))),
    {
      onFailure: (error) =>
        error instanceof LockUnavailable && error.reason === "held" ? Effect.fail(error) : Effect.succeed(error),
      onSuccess: (lease) => Effect.sync(() => taken = lease)
    }
  )
  const attempts = Effect.retryOrElse(Effect.uninterruptible(attempt), retry, (error) => Effect.succeed(error))
  const timedOut = Effect.callback<LockUnavailable>((resume) => {
    const timer = new Timer(() => {
      layer.telemetry.refused("timeout")
      resume(Effect.succeed(new LockUnavailable({ key: ask.key, reason: "timeout" })))
    })
    layer.watchdog.set(timer, ask.until)
    return Effect.sync(() => layer.watchdog.clear(timer))
  })
  // What was taken in the step in which the wait was over has no taker.
  const drop = Effect.suspend(() => taken === undefined ? Effect.void : leases.end(taken, { byHand: true }))
  return Effect.matchCauseEffect(
    restore(ask.until === Number.POSITIVE_INFINITY ? attempts : Effect.raceFirst(attempts, timedOut)),
    {
      onFailure: (cause) => Effect.andThen(drop, Effect.failCause(cause)),
      onSuccess: (result) =>
        result instanceof leases.Lease ? Effect.succeed(result) : Effect.andThen(drop, Effect.fail(result))
    }
  )
}

const attributes = (layer: LockLayer, key: string) => ({ "lock.backend": layer.backend.name, "lock.key": key })

// Spans are the most expensive part of a lock: none are made where no tracer is provided to read them.
const traced = <A, E, R>(
  layer: LockLayer,
  name: string,
  key: string,
  effect: (span: Tracer.Span | undefined) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) =>
    fiber.cache.tracer === undefined ? effect(undefined) : Effect.useSpan(
      name,
      { attributes: attributes(layer, key) },
      (span) => Effect.provideService(effect(span), Tracer.ParentSpan, span)
    )
  )

// A bigint is no attribute value of OpenTelemetry.
const annotate = (span: Tracer.Span | undefined, lease: leases.Lease): leases.Lease => {
  span?.attribute("lock.fencing_token", String(lease.token))
  return lease
}

const section = <A, E, R, X>(
  locks: Locks,
  key: string,
  given: options.Options | undefined,
  waits: boolean,
  program: ProgramOf<PublicLease, A, E, R>,
  unavailable: (error: LockUnavailable) => Exit.Exit<A, X>
): Effect.Effect<A, E | X | LockLost | LockBackendError | InvalidLockRequest, Exclude<R, Scope.Scope>> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber((fiber) => {
      const outer = held(fiber.getRef(CurrentSection))
      const taker = { fiber: fiber.id, scope: Context.getOrUndefined(fiber.context, Scope.Scope) }
      const plan = check(locks, key, given, taker, outer)
      if (plan instanceof InvalidLockRequest) return Effect.fail(plan)
      if (plan instanceof LockUnavailable) return unavailable(plan)
      const problem = programProblem(key, program)
      if (problem !== undefined) return Effect.fail(problem)
      const work = { key, plan, waits, program, unavailable, outer }
      return fiber.cache.tracer === undefined
        ? runSection(locks, work, restore, undefined)
        : traced(locks.layer, "Lock.withLock", key, (span) => runSection(locks, work, restore, span))
    })
  )

/** What a section needs until it has its lease. */
interface Work<A, E, R, X> {
  readonly key: string
  readonly plan: options.Plan
  readonly waits: boolean
  readonly program: ProgramOf<PublicLease, A, E, R>
  readonly unavailable: (error: LockUnavailable) => Exit.Exit<A, X>
  readonly outer: leases.Lease | undefined
}

const runSection = <A, E, R, X>(
  locks: Locks,
  { key, outer, plan, program, unavailable, waits }: Work<A, E, R, X>,
  restore: Restore,
  span: Tracer.Span | undefined
): Effect.Effect<A, E | X | LockLost | LockBackendError | InvalidLockRequest, Exclude<R, Scope.Scope>> => {
  const acquired = span === undefined
    ? take(locks, key, plan, undefined, waits, restore)
    : traced(
      locks.layer,
      "Lock.acquire",
      key,
      (inner) => Effect.map(take(locks, key, plan, undefined, waits, restore), (lease) => annotate(inner, lease))
    )
  return Effect.matchEffect(acquired, {
    onFailure: (error): Effect.Effect<A, X | LockBackendError> =>
      error instanceof LockUnavailable ? unavailable(error) : Effect.fail(error),
    onSuccess: (lease) => {
      lease.outer = outer
      annotate(span, lease)
      const work = Effect.scoped(programOf(key, program, () => expose(lease)))
      return run(lease, work, lease, restore, conclude<A, E | InvalidLockRequest>)
    }
  })
}

/** The program has ended: ends the lease, and tells what became of both. */
const conclude = <A, E>(lease: leases.Lease, exit: Exit.Exit<A, E>): Effect.Effect<A, E | LockLost> =>
  Effect.flatMap(
    traced(lease.hold.layer, "Lock.release", lease.hold.request.key, () => leases.end(lease, { byHand: false })),
    (loss): Exit.Exit<A, E | LockLost> => loss === undefined ? exit : withLoss(loss, exit)
  )

/** The lease is handed to the scope in the same uninterruptible region that learns of it. */
const scoped = (
  locks: Locks,
  key: string,
  given: options.Options | undefined,
  waits: boolean
): Effect.Effect<PublicLease, Refused, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    traced(
      locks.layer,
      "Lock.acquire",
      key,
      (span) =>
        Effect.flatMap(Effect.scope, (scope) =>
          Effect.withFiber((fiber): Effect.Effect<PublicLease, Refused> => {
            const taker = { fiber: fiber.id, scope }
            const plan = check(locks, key, given, taker, held(fiber.getRef(CurrentSection)))
            if (plan instanceof InvalidLockRequest || plan instanceof LockUnavailable) return Effect.fail(plan)
            return Effect.flatMap(take(locks, key, plan, taker, waits, restore), (lease) => {
              annotate(span, lease)
              // The result of the work is never masked by a release that fails: it is logged and counted.
              const leave = traced(locks.layer, "Lock.release", key, () => leases.end(lease, { byHand: false }))
              return Effect.as(Scope.addFinalizer(scope, leave), expose(lease))
            })
          }))
    )
  )

// ---------------------------------------------------------------------------------------------------------------------
// The lease as users see it
// ---------------------------------------------------------------------------------------------------------------------

const printed = ({ hold: { layer, request }, token }: leases.Lease): Printed => ({
  key: request.key,
  owner: request.owner,
  backend: layer.backend.name,
  fencingToken: token
})

// Own properties, so that a copy by `...` is as good as the lease.
const expose = (lease: leases.Lease): PublicLease =>
  Object.assign(new ExposedLease(printed(lease)), {
    lost: leases.lost(lease),
    isHeld: Effect.sync(() => leases.remaining(lease) > 0),
    remaining: Effect.sync(() => Duration.millis(leases.remaining(lease))),
    renew: leases.renew(lease),
    release: leases.release(lease),
    guard: <A, E, R>(effect: Effect.Effect<A, E, R>) => guard(lease, effect)
  })

// ---------------------------------------------------------------------------------------------------------------------
// The service
// ---------------------------------------------------------------------------------------------------------------------

/** Opens a layer over a backend. Its scope carries the watchdog and what is still to be released. */
export const open = Effect.fnUntraced(function*(
  backend: LockBackend["Service"]
): Effect.fn.Return<Locks, never, Scope.Scope> {
  const defaults = yield* options.LockDefaults
  const layer = new LockLayer(backend, yield* Clock.Clock, yield* Effect.context<never>(), options.turnOf(defaults))
  const lines = new line.Lines(layer)
  yield* Effect.forkScoped(layer.watchdog.run, { startImmediately: true })
  yield* Effect.addFinalizer(() => line.close(lines, longestRelease))
  const label = `${hostname()}:${pid}`
  return { layer, lines, defaults, defaultPlan: options.make({}, defaults, label), label }
})

/** A verb about a key, by the layer's clock. */
const ofKey = <A>(
  { layer }: Locks,
  key: string,
  verb: Effect.Effect<A, LockBackendError>
): Effect.Effect<A, LockBackendError | InvalidLockRequest> =>
  Effect.suspend((): Effect.Effect<A, LockBackendError | InvalidLockRequest> => {
    const problem = options.keyProblem(key) ?? layer.backend.check(key, options.defaultTtl)
    return problem === undefined
      ? Effect.provideContext(verb, layer.context)
      : Effect.fail(new InvalidLockRequest({ key: String(key), problem }))
  })

/** The service of an open layer. */
export const serviceOf = (locks: Locks): Lock["Service"] => {
  const { backend, context } = locks.layer
  return {
    backend: backend.name,
    acquire: (key, given) => scoped(locks, key, given, true),
    tryAcquire: (key, given) =>
      Effect.catchTag(Effect.asSome(scoped(locks, key, given, false)), "LockUnavailable", () => Effect.succeedNone),
    withLock: (key, program, given) => section(locks, key, given, true, program, Exit.fail),
    withLockIfAvailable: (key, program, given) =>
      section(locks, key, given, false, optional(key, program), () => Exit.succeed(Option.none())),
    inspect: (key) => ofKey(locks, key, Effect.suspend(() => backend.inspect(key))),
    revoke: (key, owner) => ofKey(locks, key, Effect.suspend(() => backend.revoke(key, owner))),
    ping: Effect.provideContext(backend.ping, context)
  }
}

export const make = (backend: LockBackend["Service"]): Effect.Effect<Lock["Service"], never, Scope.Scope> =>
  Effect.map(open(backend), serviceOf)
