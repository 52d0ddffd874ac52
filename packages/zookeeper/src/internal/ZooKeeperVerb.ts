/**
 * How a verb talks to the server: it waits for a connection, sends, and tries again what was not answered, for as long
 * as a command may take.
 */
import type { Validity } from "@dlock/core/LockBackend"
import type { LockBackendError } from "@dlock/core/LockError"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { failed, Unanswered } from "./ZooKeeperError.ts"
import type { Call, Reply } from "./ZooKeeperRequest.ts"
import type { Session } from "./ZooKeeperSession.ts"

/** One verb under way. */
export interface Verb {
  readonly operation: string
  readonly giveUpAt: bigint
}

/** What is tried again when it was not answered. */
export type Step<A> = Effect.Effect<A, Unanswered | LockBackendError>

export interface Talk {
  /** Runs the step of a verb, again and again while it is not answered. */
  readonly run: <A>(operation: string, step: (verb: Verb) => Step<A>) => Effect.Effect<A, LockBackendError>
  /** Sends calls in one go, once there is a connection. They are made right before they are sent. */
  readonly exchange: (verb: Verb, calls: () => ReadonlyArray<Call>) => Step<ReadonlyArray<Reply>>
  /** Until when leases are good, as the latest heartbeat says, which is waited for when it is overdue. */
  readonly validity: (operation: string) => Effect.Effect<Validity, LockBackendError>
}

export interface Settings {
  /** For people. */
  readonly servers: string
  readonly commandTimeout: Duration.Duration
}

const next = (listeners: Set<() => void>): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const listener = () => resume(Effect.void)
    listeners.add(listener)
    return Effect.sync(() => listeners.delete(listener))
  })

export const make = (session: Session, settings: Settings, clock: Clock.Clock): Talk => {
  const now = () => clock.monotonicTimeNanosUnsafe()
  const commandTimeout = Duration.toNanosUnsafe(settings.commandTimeout)

  const begin = (operation: string): Verb => ({ operation, giveUpAt: now() + commandTimeout })

  const late = (operation: string) =>
    session.client().isConnected()
      ? failed(operation, "Timeout", "the server keeps silent")
      : failed(operation, "Unreachable", `no connection to ${settings.servers}`)

  const awaiting = ({ giveUpAt, operation }: Verb, listeners: Set<() => void>) =>
    Effect.timeoutOrElse(next(listeners), {
      duration: Duration.nanos(giveUpAt > now() ? giveUpAt - now() : 0n),
      orElse: () => Effect.fail(late(operation))
    })

  const connected = (verb: Verb): Effect.Effect<void, LockBackendError> =>
    Effect.suspend(() => {
      if (session.client().isConnected()) return Effect.void
      const problem = session.problem()
      if (problem !== undefined) return Effect.fail(problem(verb.operation))
      return Effect.andThen(awaiting(verb, session.onConnection), connected(verb))
    })

  const awaitValidity = (verb: Verb): Effect.Effect<Validity, LockBackendError> =>
    Effect.suspend(() => {
      const known = session.validity()
      if (known !== undefined) return Effect.succeed(known)
      const problem = session.problem()
      if (problem !== undefined) return Effect.fail(problem(verb.operation))
      return Effect.andThen(awaiting(verb, session.onHeartbeat), awaitValidity(verb))
    })

  const send = (calls: () => ReadonlyArray<Call>): Step<ReadonlyArray<Reply>> =>
    Effect.callback((resume) =>
      session.client().send(
        calls(),
        (replies) => resume(replies === undefined ? Effect.fail(new Unanswered()) : Effect.succeed(replies))
      )
    )

  return {
    run: <A>(operation: string, step: (verb: Verb) => Step<A>) =>
      Effect.suspend(() => {
        const verb = begin(operation)
        const attempt = step(verb)
        const persist: Effect.Effect<A, LockBackendError> = Effect.catchTag(attempt, "Unanswered", () =>
          now() < verb.giveUpAt
            ? persist
            : Effect.fail(failed(operation, "Timeout", "the connection ended before the answer")))
        return persist
      }),
    exchange: (verb, calls) =>
      Effect.suspend(() => session.client().isConnected() ? send(calls) : Effect.andThen(connected(verb), send(calls))),
    validity: (operation) =>
      Effect.suspend(() => {
        const known = session.validity()
        return known === undefined ? awaitValidity(begin(operation)) : Effect.succeed(known)
      })
  }
}
