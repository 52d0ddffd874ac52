/**
 * Leadership: a section that is entered again after it was lost.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Lease } from "../Lease.ts"
import { type InvalidLockRequest, LockBackendError, type LockError, LockLost } from "../LockError.ts"
import type * as leases from "./lease.ts"
import type * as options from "./options.ts"
import type { WithLock } from "./part.ts"
import { CurrentSection, type ProgramOf, programOf, programProblem } from "./section.ts"

/** Why leadership ended, or was not reached, so that it is tried again. */
export type Setback = LockLost | LockBackendError

/** How a leader is elected. */
export interface LeaderOptions extends Pick<options.Options, "ttl" | "renew" | "maxHold" | "owner"> {
  /**
   * When to go back to the election after a loss or an error of the backend; when it ends, the last error is the result.
   * Default: after 100 milliseconds, doubled up to 5 seconds for each election that fails, with jitter.
   */
  readonly rejoin?: Schedule.Schedule<unknown, Setback> | undefined
}

/** The service, as far as leaders need it. */
export interface Electing {
  readonly backend: string
  readonly withLock: WithLock
}

// A layer that is closed stays closed.
const isSetback = (error: LockError): error is Setback =>
  error instanceof LockBackendError ? error.reason !== "Closed" : error instanceof LockLost && error.reason !== "closed"

const afterLoss = Schedule.jittered(Schedule.spaced("100 millis"))
const afterFailure = Schedule.jittered(
  Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")])
)

const leading = (backend: string) =>
  Metric.gauge("dlock_leader", { description: "Programs that lead now", attributes: { backend } })

/** Runs the program while it leads, and again while it leads again, until it has ended. */
export const run = <A, E, R>(
  { backend, withLock }: Electing,
  key: string,
  program: ProgramOf<Lease, A, E, R>,
  given: LeaderOptions | undefined
): Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope>> => {
  const problem = programProblem(key, program)
  if (problem !== undefined) return Effect.fail(problem)
  const gauge = leading(backend)
  const { rejoin, ...rest } = given ?? {}
  const inLine: options.Options = { ...rest, timeout: "Infinity", retry: false, linger: 0, minHold: 0 }
  return Effect.suspend(() => {
    let wasElected = false
    /** Errors of the program leave the schedule as values. */
    const term = Effect.suspend(() => {
      wasElected = false
      let result: Exit.Exit<A, E | InvalidLockRequest> | undefined
      const lead = (lease: Lease) => {
        wasElected = true
        const ends = Effect.match(programOf(key, program, () => lease), {
          onFailure: (error): Exit.Exit<A, E | InvalidLockRequest> => Exit.fail(error),
          onSuccess: (value): Exit.Exit<A, E | InvalidLockRequest> => Exit.succeed(value)
        })
        const counted = Effect.acquireUseRelease(
          Metric.modify(gauge, 1),
          () => ends,
          () => Metric.modify(gauge, -1)
        )
        return Effect.tap(counted, (ended) =>
          Effect.map(lease.isHeld, (held) => {
            if (held) result = ended
          }))
      }
      return Effect.matchEffect(withLock(key, lead, inLine), {
        onFailure: (error): Effect.Effect<Exit.Exit<A, E | LockError>, Setback> => {
          // The program had ended when the loss came to light: it is not run once more.
          if (result !== undefined) return Effect.succeed(result)
          return isSetback(error) ? Effect.fail(error) : Effect.succeed(Exit.fail(error))
        },
        onSuccess: (ended) => Effect.succeed<Exit.Exit<A, E | LockError>>(ended)
      })
    })
    const told = Effect.tapError(
      term,
      (error) => Effect.logWarning(`The election for "${key}" goes on: ${error.message}`)
    )
    const rejoined = rejoin === undefined
      ? Effect.retry(Effect.retry(told, { schedule: afterFailure, while: () => !wasElected }), afterLoss)
      : Effect.retry(told, rejoin)
    return Effect.flatten(rejoined)
  })
}

/** The time from an election to its end. */
interface Term {
  readonly lease: Lease
  /** Closes before the key is free. */
  readonly scope: Scope.Scope
  readonly section: leases.Lease | undefined
  readonly resigned: Deferred.Deferred<void>
  /** The key is released. */
  readonly over: Deferred.Deferred<void>
}

type State = Exit.Exit<Option.Option<Term>, LockError>

/** A candidate for as long as the scope is open. */
export const make = Effect.fnUntraced(function*(
  { backend, withLock }: Electing,
  key: string,
  options: LeaderOptions | undefined
) {
  const state = yield* SubscriptionRef.make<State>(Exit.succeed(Option.none()))
  const set = (term: Option.Option<Term>) => SubscriptionRef.set(state, Exit.succeed(term))
  let latest: Term | undefined
  const tellOver = Effect.suspend(() => latest === undefined ? Effect.void : Deferred.succeed(latest.over, undefined))
  const electing: Electing = { backend, withLock: (...section) => Effect.ensuring(withLock(...section), tellOver) }
  const lead = (lease: Lease) =>
    Effect.gen(function*() {
      const section = yield* Effect.withFiber((fiber) => Effect.succeed(fiber.getRef(CurrentSection)))
      const term: Term = {
        lease,
        scope: yield* Effect.scope,
        section,
        resigned: yield* Deferred.make<void>(),
        over: yield* Deferred.make<void>()
      }
      latest = term
      yield* set(Option.some(term))
      yield* Deferred.await(term.resigned)
    }).pipe(Effect.ensuring(set(Option.none())))
  const candidate = Effect.forever(run(electing, key, lead, options))
  yield* Effect.addFinalizer(() => PubSub.shutdown(state.pubsub))
  yield* Effect.forkScoped(
    Effect.catchCause(candidate, (cause) => SubscriptionRef.set(state, Exit.failCause(cause))),
    { startImmediately: true }
  )
  // What is invalid is known at once.
  yield* yield* SubscriptionRef.get(state)
  const changes = Stream.mapEffect(SubscriptionRef.changes(state), (now) => now)
  const current = Effect.map(SubscriptionRef.get(state), (now) => Option.flatten(Exit.getSuccess(now)))
  const nextTerm = Effect.flatMap(
    Stream.runHead(Stream.flatMap(changes, (term) => Stream.fromIterable(Option.toArray(term)))),
    // The candidate's scope is closed.
    Option.match({ onNone: () => Effect.interrupt, onSome: Effect.succeed })
  )
  const isLeader = ({ lease }: Term) => lease.isHeld
  const resign = ({ over, resigned }: Term) =>
    Effect.andThen(Deferred.succeed(resigned, undefined), Deferred.await(over))
  return {
    key,
    isLeader: Effect.flatMap(current, Option.match({ onNone: () => Effect.succeed(false), onSome: isLeader })),
    changes: Stream.map(changes, Option.map(({ lease }) => lease)),
    run: <A, E, R>(program: ProgramOf<Lease, A, E, R>) => whileLeading(key, nextTerm, current, program),
    resign: Effect.flatMap(current, Option.match({ onNone: () => Effect.void, onSome: resign }))
  }
})

/** Runs the program in a term, and once more in the next if the term ends before it. */
const whileLeading = <A, E, R>(
  key: string,
  nextTerm: Effect.Effect<Term, LockError>,
  current: Effect.Effect<Option.Option<Term>>,
  program: ProgramOf<Lease, A, E, R>
): Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope>> =>
  Effect.uninterruptibleMask((restore) => {
    const inTerm: Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope>> = Effect.flatMap(
      restore(nextTerm),
      (term) => {
        const work = Effect.scoped(programOf(key, program, () => term.lease))
        return Effect.gen(function*() {
          const fiber = yield* Effect.forkIn(
            Effect.provideService(work, CurrentSection, term.section),
            term.scope,
            { startImmediately: true }
          )
          const exit = yield* Effect.onInterrupt(restore(Fiber.await(fiber)), () => Fiber.interrupt(fiber))
          const now = yield* current
          const isOver = Option.isNone(now) || now.value !== term
          return yield* Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) && isOver ? inTerm : exit
        })
      }
    )
    return inTerm
  })
