/**
 * The `Lock` service over an engine: `withLock` runs a program as the section of a lease, `acquire` hands the lease to
 * a scope.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { hostname } from "node:os"
import { pid } from "node:process"
import type { Lock } from "../Lock.ts"
import type { LockBackend } from "../LockBackend.ts"
import { InvalidLockRequest, type LockBackendError, type LockLost, LockUnavailable } from "../LockError.ts"
import { Call, type Section } from "./call.ts"
import { Engine } from "./engine.ts"
import { giveBack, startGivingBack } from "./givingBack.ts"
import { Holding } from "./holding.ts"
import { LockDefaults } from "./lockDefaults.ts"
import * as plans from "./plan.ts"
import { type Mode, take } from "./taking.ts"

const CurrentSection = Context.Reference<Section | undefined>("@dlock/core/CurrentSection", {
  defaultValue: () => undefined
})

/** The innermost that still holds its key. A fiber may outlive the sections that it was started in. */
const held = (section: Section | undefined): Section | undefined => {
  let at = section
  while (at !== undefined && at.holding?.state !== "held") at = at.outer
  return at
}

/** Asking for a key inside its own section. Sections that have ended are let go of on the way. */
const isReentry = (engine: Engine, key: string, innermost: Section | undefined): boolean => {
  for (let section = innermost; section !== undefined; section = section.outer) {
    if (section.engine === engine && section.key === key) return true
    section.outer = held(section.outer)
  }
  return false
}

/** What a section ends with when its lease was lost: `LockLost`, and the defects of the program, if any. */
const lossCause = <A, E>(holding: Holding, exit: Exit.Exit<A, E>): Cause.Cause<LockLost> => {
  const lost = Cause.fail(holding.lossError)
  if (Exit.isSuccess(exit)) return lost
  return Cause.combine(lost, Cause.fromReasons(exit.cause.reasons.filter(Cause.isDieReason)))
}

// A bigint is no attribute value of OpenTelemetry.
const annotate = (span: Tracer.Span, holding: Holding): void =>
  span.attribute("lock.fencing_token", String(holding.fencingToken))

const modeOf = (plan: plans.Plan): Mode => plan.timeout === 0 ? "try" : plan.retry === undefined ? "wait" : "retry"

// No wait at all is one attempt, for whose answer the backend has its own limit.
const longestWait = (plan: plans.Plan, wait: boolean): number =>
  wait && plan.timeout > 0 ? plan.timeout : Number.POSITIVE_INFINITY

export const make = Effect.fnUntraced(function*(
  backend: LockBackend["Service"]
): Effect.fn.Return<Lock["Service"], never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const engine = new Engine(backend, clock, yield* Effect.context<never>())
  yield* Effect.forkScoped(engine.watchdog.run(engine.onSlept), { startImmediately: true })
  yield* Effect.addFinalizer(() => engine.close)

  const label = `${hostname()}:${pid}`
  const defaults = yield* LockDefaults
  const defaultPlan = plans.make({}, defaults, label)

  /** Checks the request before anything is sent. */
  const prepare = (
    key: string,
    options: Lock.Options | undefined,
    innermost: Section | undefined
  ): plans.Plan | InvalidLockRequest | LockUnavailable => {
    const plan = options === undefined ? defaultPlan : plans.make(options, defaults, label)
    const problem = plans.keyProblem(key) ?? (typeof plan === "string" ? plan : backend.check(key, plan.ttl))
    if (typeof plan === "string" || problem !== undefined) {
      return new InvalidLockRequest({ key: String(key), problem: String(problem) })
    }
    if (!isReentry(engine, key, innermost)) return plan
    engine.telemetry.refused("reentry")
    return new LockUnavailable({ key, reason: "reentry" })
  }

  const attributes = (key: string) => ({ "lock.backend": backend.name, "lock.key": key })

  // Spans are the dearest part of a lock: none are made where nobody has provided a tracer to read them.
  const traced = <A, E, R>(name: string, key: string, effect: () => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.withFiber((fiber) =>
      fiber.cache.tracer === undefined ?
        effect() :
        Effect.useSpan(name, { attributes: attributes(key) }, (span) =>
          Effect.map(effect(), (value) => {
            if (value instanceof Holding) annotate(span, value)
            return value
          }))
    )

  /** The program has ended: reads the deadline once more, gives back, answers. */
  const finish = <A, E>(
    call: Call<A, E | LockLost>,
    holding: Holding,
    exit: Exit.Exit<A, E>
  ): Effect.Effect<unknown> => {
    const conclude = (): Effect.Effect<unknown> => {
      const result = holding.state === "lost" ? Exit.failCause(lossCause(holding, exit)) : exit
      call.returning(result)
      return Effect.map(
        traced("Lock.release", call.key, () => startGivingBack(engine, holding)),
        () => call.answer(result)
      )
    }
    const now = engine.watchdog.now()
    if (!holding.check(now) || !holding.isDoubtful(now)) return conclude()
    return Effect.flatMap(Effect.exit(Effect.raceFirst(holding.makeSure(), holding.lost)), () => {
      const now = engine.watchdog.now()
      if (holding.check(now) && holding.isDoubtful(now)) holding.lose("expired")
      return conclude()
    })
  }

  /** Starts the fiber that takes the key, runs the program, and gives back when both have ended. */
  const begin = <A, E, R>(
    call: Call<A, E | LockLost | LockBackendError>,
    plan: plans.Plan,
    mode: Mode,
    program: Lock.Program<A, E, R>,
    context: Context.Context<Exclude<R, Scope.Scope>>,
    span: Tracer.Span | undefined
  ): Effect.Effect<void> | undefined => {
    const taking = () => take(call, plan, mode)
    const body = Effect.flatMap(
      span === undefined ? taking() : traced("Lock.acquire", call.key, taking),
      (taken): Effect.Effect<A, E | LockLost | LockBackendError, Exclude<R, Scope.Scope>> => {
        if (taken instanceof LockUnavailable) return call.unavailable(taken)
        if (span !== undefined) annotate(span, taken)
        return Effect.interruptible(
          Effect.scoped(Effect.isEffect(program) ? program : Effect.suspend(() => program(taken)))
        )
      }
    )
    const fiber = Effect.runForkWith(context)(body, { uninterruptible: true })
    // The key is given back when the fiber has ended, and with it those that the program left behind.
    fiber.addObserver((exit) => {
      const { holding } = call
      if (holding === undefined) {
        call.answer(exit)
        return
      }
      // Whatever throws in here, a tracer for example: the key is given back, and the caller is answered.
      const sure = Effect.catchCause(
        Effect.suspend(() => finish(call, holding, exit)),
        (cause) => abandon(call, holding, Exit.failCause(cause))
      )
      Effect.runForkWith(context)(sure, { uninterruptible: true })
    })
    return call.run(fiber)
  }

  const section = <A, E, R, X>(
    key: string,
    options: Lock.Options | undefined,
    wait: boolean,
    program: Lock.Program<A, E, R>,
    unavailable: (error: LockUnavailable) => Exit.Exit<A, X>
  ): Effect.Effect<A, E | LockLost | LockBackendError | InvalidLockRequest | X, Exclude<R, Scope.Scope>> => {
    type Failure = E | LockLost | LockBackendError | InvalidLockRequest | X
    return Effect.contextWith((context: Context.Context<Exclude<R, Scope.Scope>>): Effect.Effect<A, Failure> => {
      const outer = held(Context.get(context, CurrentSection))
      const plan = prepare(key, options, outer)
      if (plan instanceof InvalidLockRequest) return Effect.fail(plan)
      if (plan instanceof LockUnavailable) return unavailable(plan)
      const run = (span: Tracer.Span | undefined) =>
        Effect.callback<A, Failure>((resume) => {
          const timeout = longestWait(plan, wait)
          const call = new Call<A, Failure>(engine, key, {
            timeout,
            isSection: true,
            outer,
            unavailable,
            onAnswer: resume
          })
          const inside = Context.add(context, CurrentSection, call)
          const inner = span === undefined ? inside : Context.add(inside, Tracer.ParentSpan, span)
          return begin<A, Failure, R>(call, plan, wait ? modeOf(plan) : "try", program, inner, span)
        })
      return Context.getOrUndefined(context, Tracer.Tracer) === undefined
        ? run(undefined)
        : Effect.useSpan("Lock.withLock", { attributes: attributes(key) }, run)
    })
  }

  /** Gives back what nobody is to use. */
  const abandon = <A, E>(call: Call<A, E>, holding: Holding, result: Exit.Exit<A, E>): Effect.Effect<unknown> =>
    Effect.map(giveBack(engine, holding), () => call.answer(result))

  /** The lease is handed to the scope in the same uninterruptible region that learns of it. */
  const scoped = (
    key: string,
    options: Lock.Options | undefined,
    wait: boolean
  ): Effect.Effect<Holding, LockUnavailable | LockBackendError | InvalidLockRequest, Scope.Scope> => {
    type Failure = LockUnavailable | LockBackendError | InvalidLockRequest
    return Effect.uninterruptibleMask((restore) =>
      traced(
        "Lock.acquire",
        key,
        () =>
          Effect.contextWith((context: Context.Context<Scope.Scope>): Effect.Effect<Holding, Failure> => {
            const plan = prepare(key, options, held(Context.get(context, CurrentSection)))
            if (plan instanceof InvalidLockRequest || plan instanceof LockUnavailable) return Effect.fail(plan)
            let asked: Call<Holding, Failure> | undefined
            const taken = Effect.callback<Holding, Failure>((resume) => {
              const timeout = longestWait(plan, wait)
              const call = new Call<Holding, Failure>(engine, key, {
                timeout,
                isSection: false,
                unavailable: Exit.fail,
                onAnswer: resume
              })
              asked = call
              const taking = take(call, plan, wait ? modeOf(plan) : "try")
              const fiber = Effect.runForkWith(context)(taking, { uninterruptible: true })
              fiber.addObserver((exit) => {
                const { holding } = call
                const result: Exit.Exit<Holding, LockUnavailable | LockBackendError> = Exit.isFailure(exit)
                  ? Exit.failCause(exit.cause)
                  : exit.value instanceof Holding
                  ? Exit.succeed(exit.value)
                  : Exit.fail(exit.value)
                // Granted in the very step in which the wait timed out, or interrupted in it: nobody is there to take it.
                if (holding !== undefined && (Exit.isFailure(result) || !call.answer(result))) {
                  engine.runFork(abandon<Holding, Failure>(call, holding, result))
                } else {
                  call.answer(result)
                }
              })
              return call.run(fiber)
            })
            return Effect.matchCauseEffect(restore(taken), {
              onFailure: (cause) => {
                const dropped = asked?.holding
                return Effect.flatMap(
                  dropped === undefined ? Effect.void : leave(dropped),
                  () => Effect.failCause(cause)
                )
              },
              onSuccess: (taken) =>
                Effect.as(Scope.addFinalizer(Context.get(context, Scope.Scope), leave(taken)), taken)
            })
          })
      )
    )
  }

  /** The result of the work is never masked by a release that fails: the engine has logged and counted it. */
  const leave = (holding: Holding): Effect.Effect<void> =>
    Effect.ignore(traced("Lock.release", holding.key, () => holding.release))

  return {
    backend: backend.name,
    acquire: (key, options) => scoped(key, options, true),
    tryAcquire: (key, options) =>
      Effect.catchTag(Effect.asSome(scoped(key, options, false)), "LockUnavailable", () => Effect.succeedNone),
    withLock: (key, program, options) => section(key, options, true, program, Exit.fail),
    withLockIfAvailable: (key, program, options) =>
      section(
        key,
        options,
        false,
        (lease) => Effect.asSome(Effect.isEffect(program) ? program : program(lease)),
        () => Exit.succeed(Option.none())
      )
  }
})
