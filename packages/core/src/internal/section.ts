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
import type { Lease } from "../Lease.ts"
import type { Lock } from "../Lock.ts"
import type { LockBackend } from "../LockBackend.ts"
import { InvalidLockRequest, type LockBackendError, type LockLost, LockUnavailable } from "../LockError.ts"
import { Call } from "./call.ts"
import { Engine, type Mode } from "./engine.ts"
import { Holding } from "./holding.ts"
import { LockDefaults } from "./lockDefaults.ts"
import * as plans from "./plan.ts"

/** The sections that a fiber runs in, innermost first: asking for a key inside its own section is reentry. */
interface Section {
  readonly engine: Engine
  readonly call: { readonly key: string, readonly holding: Holding | undefined }
  readonly outer: Section | undefined
}

const CurrentSection = Context.Reference<Section | undefined>("@dlock/core/CurrentSection", {
  defaultValue: () => undefined
})

const isReentry = (engine: Engine, key: string, context: Context.Context<never>): boolean => {
  let section = Context.get(context, CurrentSection)
  while (section !== undefined) {
    const { call } = section
    if (section.engine === engine && call.key === key && call.holding?.state === "held") return true
    section = section.outer
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
    context: Context.Context<never>
  ): plans.Plan | InvalidLockRequest | LockUnavailable => {
    const plan = options === undefined ? defaultPlan : plans.make(options, defaults, label)
    const problem = plans.keyProblem(key) ?? (typeof plan === "string" ? plan : backend.check(key, plan.ttl))
    if (typeof plan === "string" || problem !== undefined) {
      return new InvalidLockRequest({ key: String(key), problem: String(problem) })
    }
    if (!isReentry(engine, key, context)) return plan
    engine.telemetry.refused("reentry")
    return new LockUnavailable({ key, reason: "reentry" })
  }

  const traced = <A, E, R>(name: string, key: string, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(
      Effect.makeSpan(name, { attributes: { "lock.backend": backend.name, "lock.key": key } }),
      (span) =>
        Effect.onExit(effect, (exit) =>
          Effect.sync(() => {
            if (Exit.isSuccess(exit) && exit.value instanceof Holding) annotate(span, exit.value)
            span.end(clock.currentTimeNanosUnsafe(), exit)
          }))
    )

  /** The program has ended: reads the deadline once more, gives back, answers. */
  const finish = <A, E, X>(
    call: Call<A, E | LockLost | X>,
    holding: Holding,
    exit: Exit.Exit<A, E>
  ): Effect.Effect<void> => {
    const conclude = Effect.suspend(() => {
      if (holding.check(engine.watchdog.now()) && holding.doubtful) holding.lose("expired")
      const result = holding.state === "lost" ? Exit.failCause(lossCause(holding, exit)) : exit
      call.returning(result)
      return Effect.flatMap(
        traced("Lock.release", call.key, engine.giveBack(holding)),
        () => Effect.sync(() => call.answer(result))
      )
    })
    return Effect.suspend(() =>
      holding.check(engine.watchdog.now()) && holding.doubtful
        ? Effect.flatMap(Effect.exit(Effect.raceFirst(holding.askRenewal, holding.lost)), () => conclude)
        : conclude
    )
  }

  const section = <A, E, R, X>(
    key: string,
    options: Lock.Options | undefined,
    wait: boolean,
    program: (lease: Lease) => Effect.Effect<A, E, R>,
    unavailable: (error: LockUnavailable) => Exit.Exit<A, X>
  ): Effect.Effect<A, E | LockLost | LockBackendError | InvalidLockRequest | X, Exclude<R, Scope.Scope>> => {
    type Failure = E | LockLost | LockBackendError | InvalidLockRequest | X
    return Effect.contextWith((context: Context.Context<Exclude<R, Scope.Scope>>): Effect.Effect<A, Failure> => {
      const plan = prepare(key, options, context)
      if (plan instanceof InvalidLockRequest) return Effect.fail(plan)
      if (plan instanceof LockUnavailable) return unavailable(plan)
      const attributes = { "lock.backend": backend.name, "lock.key": key }
      return Effect.flatMap(
        Effect.makeSpan("Lock.withLock", { attributes }),
        (span) =>
          Effect.callback<A, Failure>((resume) => {
            const call = new Call<A, Failure>(engine, key, {
              timeout: longestWait(plan, wait),
              isSection: true,
              unavailable,
              onAnswer: (exit) => {
                span.end(clock.currentTimeNanosUnsafe(), exit)
                resume(exit)
              }
            })
            const outer = Context.get(context, CurrentSection)
            const inner = context.pipe(
              Context.add(CurrentSection, { engine, call, outer }),
              Context.add(Tracer.ParentSpan, span)
            )
            const mode = wait ? modeOf(plan) : "try"
            let ended: { readonly holding: Holding, readonly exit: Exit.Exit<A, E> } | undefined
            const body = Effect.matchCauseEffect(traced("Lock.acquire", key, engine.take(call, plan, mode)), {
              onFailure: (cause) => abandon(call, Exit.failCause(cause)),
              onSuccess: (holding) => {
                if (holding instanceof LockUnavailable) return Effect.sync(() => call.answer(unavailable(holding)))
                annotate(span, holding)
                const inside = Effect.interruptible(Effect.scoped(Effect.suspend(() => program(holding))))
                return Effect.map(Effect.exit(inside), (exit) => {
                  ended = { holding, exit }
                })
              }
            })
            const fiber = Effect.runForkWith(inner)(body, { uninterruptible: true })
            // The key is given back when the fiber has ended, and with it those that the program left behind.
            fiber.addObserver((exit) => {
              if (ended === undefined && Exit.isSuccess(exit)) return
              const rest = ended !== undefined ? finish(call, ended.holding, ended.exit) : Effect.asVoid(exit)
              // Whatever throws in here, a tracer for example: the key is given back, and the caller is answered.
              const sure = Effect.catchCause(rest, (cause) => abandon(call, Exit.failCause(cause)))
              Effect.runForkWith(inner)(sure, { uninterruptible: true })
            })
            return call.run(fiber)
          })
      )
    })
  }

  /** Interrupted between the grant and its use. */
  const abandon = <A, E>(call: Call<A, E>, result: Exit.Exit<A, E>): Effect.Effect<void> =>
    Effect.flatMap(
      call.holding === undefined ? Effect.void : engine.giveBack(call.holding),
      () => Effect.sync(() => call.answer(result))
    )

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
        Effect.contextWith((context: Context.Context<Scope.Scope>): Effect.Effect<Holding, Failure> => {
          const plan = prepare(key, options, context)
          if (plan instanceof InvalidLockRequest || plan instanceof LockUnavailable) return Effect.fail(plan)
          let asked: Call<Holding, Failure> | undefined
          const taken = Effect.callback<Holding, Failure>((resume) => {
            const call = new Call<Holding, Failure>(engine, key, {
              timeout: longestWait(plan, wait),
              isSection: false,
              unavailable: Exit.fail,
              onAnswer: resume
            })
            asked = call
            const body = Effect.matchCauseEffect(engine.take(call, plan, wait ? modeOf(plan) : "try"), {
              onFailure: (cause) => abandon(call, Exit.failCause(cause)),
              // Granted in the very step in which the wait timed out: nobody is there to take it.
              onSuccess: (taken) =>
                Effect.suspend(() => {
                  if (taken instanceof LockUnavailable) call.answer(Exit.fail(taken))
                  else if (!call.answer(Exit.succeed(taken))) return engine.giveBack(taken)
                  return Effect.void
                })
            })
            return call.run(Effect.runForkWith(context)(body, { uninterruptible: true }))
          })
          return Effect.matchCauseEffect(restore(taken), {
            onFailure: (cause) => {
              const dropped = asked?.holding
              return Effect.flatMap(dropped === undefined ? Effect.void : leave(dropped), () => Effect.failCause(cause))
            },
            onSuccess: (taken) => Effect.as(Scope.addFinalizer(Context.get(context, Scope.Scope), leave(taken)), taken)
          })
        })
      )
    )
  }

  /** The result of the work is never masked by a release that fails: the engine has logged and counted it. */
  const leave = (holding: Holding): Effect.Effect<void> =>
    Effect.ignore(traced("Lock.release", holding.key, engine.release(holding)))

  return {
    backend: backend.name,
    acquire: (key, options) => scoped(key, options, true),
    tryAcquire: (key, options) =>
      Effect.catchTag(Effect.asSome(scoped(key, options, false)), "LockUnavailable", () => Effect.succeedNone),
    withLock: (key, program, options) =>
      section(key, options, true, Effect.isEffect(program) ? () => program : program, Exit.fail),
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
