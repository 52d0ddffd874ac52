/**
 * The verbs of the lock: entering the line, waiting in it, holding, giving back.
 */
import type { Grant, LockBackend, LockRequest, Validity } from "@dlock/core/LockBackend"
import { LockBackendError } from "@dlock/core/LockError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { ITxnRequest, ITxnResponse } from "etcd3"
import { Attempt } from "./EtcdAttempt.ts"
import type { EtcdClient, Limits } from "./EtcdClient.ts"
import type { LeaseGone } from "./EtcdFailure.ts"
import * as EtcdGuard from "./EtcdGuard.ts"
import type { Session } from "./EtcdSession.ts"
import * as EtcdSession from "./EtcdSession.ts"
import * as EtcdTxn from "./EtcdTxn.ts"
import * as EtcdWaiting from "./EtcdWaiting.ts"
import * as EtcdWatch from "./EtcdWatch.ts"

export type EtcdLine = Pick<LockBackend["Service"], "tryAcquire" | "acquire" | "renew" | "release">

/** How long giving back waits for the answer of what is in flight, which tells whether there is anything to give. */
const grace = "500 millis"

const givenBack = new LockBackendError({
  backend: "etcd",
  operation: "acquire",
  reason: "Rejected",
  detail: "this attempt was given back"
})

const validityOf = ({ ttl, validFrom }: Session): Validity => ({ validFrom, ttl })

/** The grant of an attempt that holds already. */
const regrant = ({ displaced, over, revision, session, state }: Attempt): Grant | undefined =>
  state === "held" && !over && !displaced && session !== undefined && revision !== undefined
    ? { ...validityOf(session), fencingToken: revision }
    : undefined

type Asking = NonNullable<Attempt["asking"]>

const isRunning = (asking: Asking | undefined): asking is Asking =>
  asking !== undefined && asking.pollUnsafe() === undefined

/** What the fiber that asks came to; nothing, if giving back ended it. */
const answerOf = (attempt: Attempt, asking: Asking) =>
  Effect.flatMap(
    Fiber.await(asking),
    (exit) => attempt.over && Exit.hasInterrupts(exit) ? Effect.succeedNone : exit
  )

/** Ends the asking. If it may come to a grant in a moment, it is awaited: then no mark is needed. */
const endAsking = (attempt: Attempt, asking: Asking): Effect.Effect<void> =>
  Effect.andThen(
    attempt.doubtful ? Effect.timeoutOption(Fiber.await(asking), grace) : Effect.void,
    Fiber.interrupt(asking)
  )

export const make = Effect.fnUntraced(function*(
  client: EtcdClient,
  options: { readonly root: string, readonly commandTimeout: number }
): Effect.fn.Return<EtcdLine, never, Scope.Scope> {
  const { commandTimeout, root } = options
  const clock = yield* Clock.Clock
  const scope = yield* Effect.scope
  const sessions = yield* EtcdSession.make(client, commandTimeout)
  const watches = EtcdWatch.make(client)
  yield* Effect.addFinalizer(() => Effect.sync(watches.close))
  const guard = yield* EtcdGuard.make(client, watches, sessions, commandTimeout, root)
  const waiting = EtcdWaiting.make(client, watches, commandTimeout)
  /** By identity: the same request comes with every verb of an attempt. */
  const attempts = new WeakMap<LockRequest, Attempt>()

  const attemptOf = (request: LockRequest): Attempt => {
    const known = attempts.get(request)
    if (known !== undefined) return known
    const attempt = new Attempt(request)
    attempts.set(request, attempt)
    return attempt
  }

  /** Asks the server for the session that many share, but no longer than this attempt may take. */
  const refresh = (attempt: Attempt, session: Session, operation: string) =>
    Effect.timeoutOrElse(sessions.refresh(session), {
      duration: attempt.limit(commandTimeout),
      orElse: () => Effect.fail(new LockBackendError({ backend: "etcd", operation, reason: "Timeout" }))
    })

  /** A new session if the attempt has none or it ended. */
  const join = (attempt: Attempt): Effect.Effect<Session, LockBackendError> => {
    attempt.doubtful = false
    return sessions.join(attempt, attempt.request.ttl)
  }

  /** The session that the attempt lives on. */
  const board = (attempt: Attempt): Effect.Effect<Session, LockBackendError> =>
    Effect.suspend(() => {
      const { session } = attempt
      return Effect.flatMap(
        session === undefined || session.ended !== undefined ? join(attempt) : Effect.succeed(session),
        // A lease that was refreshed before the machine slept has less time left than it seems.
        (session) =>
          session.isDoubtful(clock) ? Effect.as(refresh(attempt, session, "acquire"), session) : Effect.succeed(session)
      )
    })

  /** Sends what puts the key, and takes in the answer. Who is interrupted before that does not know it. */
  const send = (
    attempt: Attempt,
    request: ITxnRequest,
    onAnswer: (response: ITxnResponse) => void
  ): Effect.Effect<ITxnResponse, LockBackendError | LeaseGone> =>
    Effect.suspend(() => {
      if (attempt.over) return Effect.fail(givenBack)
      let { doubtful } = attempt
      attempt.doubtful = true
      const limits = { total: attempt.limit(commandTimeout), onDoubt: () => doubtful = true }
      return Effect.matchEffect(client.txnOnLease("acquire", request, limits), {
        onFailure: (error) => {
          attempt.doubtful = doubtful
          return Effect.fail(error)
        },
        onSuccess: (response) => {
          attempt.doubtful = doubtful
          onAnswer(response)
          return Effect.succeed(response)
        }
      })
    })

  /** A request for a lease that the server does not have tells that the session is over. */
  const unlessGone = <A>(
    session: Session,
    effect: Effect.Effect<A, LockBackendError | LeaseGone>
  ): Effect.Effect<A | undefined, LockBackendError> =>
    Effect.catchTag(effect, "LeaseGone", () =>
      Effect.sync(() => {
        sessions.gone(session)
        return undefined
      }))

  /** The grant, unless the key is gone again or was given back already. */
  const grant = (attempt: Attempt, session: Session): Grant | undefined => {
    const { revision } = attempt
    if (attempt.over || attempt.displaced || revision === undefined || session.ended !== undefined) return undefined
    attempt.state = "held"
    guard.add(attempt)
    return { ...validityOf(session), fencingToken: revision }
  }

  /** When the answer is lost, a later copy finds nothing to remove. */
  const leaving = (attempt: Attempt): Limits => ({
    total: attempt.limit(commandTimeout),
    onDoubt: () => attempt.left = true
  })

  const annul = (attempt: Attempt, session: Session): Effect.Effect<boolean, LockBackendError> => {
    const txn = EtcdTxn.annul(attempt.spotOn(session, root))
    return unlessGone(session, client.txnOnLease("release", txn, leaving(attempt))).pipe(
      Effect.map((response) => {
        if (response === undefined) return false
        session.marks++
        return EtcdTxn.annulled(response) || attempt.left
      })
    )
  }

  /** The key is held by somebody. Nobody gives back what was refused, so a copy that may still come must meet the mark. */
  const refused = (attempt: Attempt, session: Session): Effect.Effect<Option.Option<Grant>, LockBackendError> =>
    Effect.map(attempt.doubtful ? annul(attempt, session) : Effect.void, () => {
      attempt.doubtful = false
      sessions.leave(attempt)
      attempt.session = undefined
      return Option.none()
    })

  /** Takes the key if it is free. */
  const take = (attempt: Attempt): Effect.Effect<Option.Option<Grant>, LockBackendError> =>
    Effect.flatMap(board(attempt), (session) => {
      if (attempt.over) return Effect.succeedNone
      if (session.ended !== undefined) return take(attempt)
      const spot = attempt.spotOn(session, root)
      attempt.displaced = false
      const onAnswer = (response: ITxnResponse) => attempt.revision = EtcdTxn.taken(response, spot)
      return Effect.flatMap(unlessGone(session, send(attempt, EtcdTxn.take(spot), onAnswer)), (response) => {
        if (response !== undefined && attempt.revision === undefined) return refused(attempt, session)
        const granted = response === undefined ? undefined : grant(attempt, session)
        return granted === undefined ? take(attempt) : Effect.succeedSome(granted)
      })
    })

  /** Enters the line; none: begin again. */
  const enter = Effect.fnUntraced(function*(attempt: Attempt, session: Session) {
    guard.remove(attempt)
    attempt.displaced = false
    const spot = attempt.spotOn(session, root)
    const onAnswer = (response: ITxnResponse) => attempt.revision = EtcdTxn.entered(response)?.revision
    const response = yield* unlessGone(session, send(attempt, EtcdTxn.enter(spot), onAnswer))
    if (response === undefined) return Option.none()
    const entered = EtcdTxn.entered(response)
    if (entered === undefined) return yield* givenBack
    return "predecessor" in entered
      ? Option.some(entered)
      : Option.fromUndefinedOr(yield* waiting.look(attempt, spot, entered.revision))
  })

  /** Waits for the key. */
  const lineUp = Effect.fnUntraced(function*(attempt: Attempt) {
    while (!attempt.over) {
      const session = yield* board(attempt)
      if (session.ended !== undefined) continue
      const standing = yield* enter(attempt, session)
      if (Option.isNone(standing)) continue
      const { predecessor, revision } = standing.value
      if (predecessor !== undefined) {
        attempt.state = "waiting"
        guard.add(attempt)
        yield* waiting.wait(attempt, attempt.spotOn(session, root), revision, predecessor)
      }
      const granted = grant(attempt, session)
      if (granted !== undefined) return Option.some(granted)
    }
    return Option.none()
  })

  /** In a fiber of its own: the caller may be interrupted at any moment, and giving back has to know what became. */
  const ask = (attempt: Attempt, verb: (attempt: Attempt) => Effect.Effect<Option.Option<Grant>, LockBackendError>) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.forkIn(verb(attempt), scope, { startImmediately: true }), (fiber) => {
        attempt.asking = fiber
        fiber.addObserver(() => {
          attempt.asking = undefined
          if (attempt.returned) sessions.leave(attempt)
        })
        return restore(answerOf(attempt, fiber))
      })
    )

  const tryAcquire = (request: LockRequest): Effect.Effect<Option.Option<Grant>, LockBackendError> =>
    Effect.suspend(() => {
      const attempt = attemptOf(request)
      const again = regrant(attempt)
      if (again !== undefined) return Effect.succeedSome(again)
      return attempt.over || attempt.state !== "asking" ? Effect.succeedNone : ask(attempt, take)
    })

  const acquire = (request: LockRequest): Effect.Effect<Grant, LockBackendError> =>
    Effect.suspend(() => {
      const attempt = attemptOf(request)
      const again = regrant(attempt)
      if (again !== undefined) return Effect.succeed(again)
      if (attempt.over || attempt.state === "lost") return Effect.fail(givenBack)
      const granted = isRunning(attempt.asking) ? answerOf(attempt, attempt.asking) : ask(attempt, lineUp)
      return Effect.flatMap(
        granted,
        Option.match({
          onNone: () => Effect.fail(givenBack),
          onSome: Effect.succeed
        })
      )
    })

  const renew = Effect.fnUntraced(function*(request: LockRequest) {
    const attempt = attempts.get(request)
    const session = attempt?.session
    if (attempt === undefined || session === undefined || regrant(attempt) === undefined) return Option.none()
    if (session.isDue(clock) || session.isDoubtful(clock)) yield* refresh(attempt, session, "renew")
    return regrant(attempt) === undefined ? Option.none() : Option.some(validityOf(session))
  })

  /** Removes the key of an attempt whose every request was answered. */
  const remove = (attempt: Attempt, session: Session, revision: bigint): Effect.Effect<boolean, LockBackendError> => {
    const { place } = attempt.spotOn(session, root)
    return Effect.map(
      client.txn("release", EtcdTxn.leave(place, revision), leaving(attempt)),
      ({ succeeded }) => succeeded || attempt.left
    )
  }

  /** Gives back what the attempt has, when nothing asks for it any more. */
  const leave = (attempt: Attempt): Effect.Effect<boolean, LockBackendError> =>
    Effect.suspend(() => {
      const { doubtful, revision, session } = attempt
      if (session === undefined || session.ended !== undefined) return Effect.succeed(false)
      if (!doubtful && revision === undefined) return Effect.succeed(false)
      const left = doubtful || revision === undefined ? annul(attempt, session) : remove(attempt, session, revision)
      return Effect.map(left, (wasOurs) => wasOurs && attempt.state !== "waiting")
    })

  const giveBack = (attempt: Attempt): Effect.Effect<boolean, LockBackendError> =>
    isRunning(attempt.asking) ? Effect.andThen(endAsking(attempt, attempt.asking), leave(attempt)) : leave(attempt)

  const release = (request: LockRequest): Effect.Effect<boolean, LockBackendError> =>
    Effect.suspend(() => {
      const attempt = attemptOf(request)
      if (attempt.returned) return Effect.succeed(false)
      attempt.over = true
      guard.remove(attempt)
      attempt.wake?.()
      return Effect.tap(giveBack(attempt), () =>
        Effect.sync(() => {
          attempt.returned = true
          sessions.leave(attempt)
        }))
    })

  return { tryAcquire, acquire, renew, release }
})
