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

export interface Verb {
  /** Sends calls in one go, once there is a connection. They are made right before they are sent. */
  readonly exchange: (calls: () => ReadonlyArray<Call>) => Effect.Effect<
    ReadonlyArray<Reply>,
    Unanswered | LockBackendError
  >
  /** Until when leases are good, as the latest heartbeat says, which is waited for when it is overdue. */
  readonly validity: Effect.Effect<Validity, LockBackendError>
}

/** Runs the steps of a verb. */
export type Run = <A>(
  operation: string,
  step: (verb: Verb) => Effect.Effect<A, Unanswered | LockBackendError>
) => Effect.Effect<A, LockBackendError>

const next = (listeners: Set<() => void>): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const listener = () => resume(Effect.void)
    listeners.add(listener)
    return Effect.sync(() => listeners.delete(listener))
  })

export interface Settings {
  /** For people. */
  readonly servers: string
  readonly commandTimeout: Duration.Duration
}

export const runWith = (session: Session, { commandTimeout, servers }: Settings, clock: Clock.Clock): Run => {
  const now = () => clock.monotonicTimeNanosUnsafe()
  const unanswered = Effect.fail(new Unanswered())

  const giveUp = (operation: string) =>
    session.client().isConnected()
      ? failed(operation, "Timeout", "the server keeps silent")
      : failed(operation, "Unreachable", `no connection to ${servers}`)

  const awaiting = (operation: string, giveUpAt: bigint, listeners: Set<() => void>) =>
    Effect.timeoutOrElse(next(listeners), {
      duration: Duration.nanos(giveUpAt > now() ? giveUpAt - now() : 0n),
      orElse: () => Effect.fail(giveUp(operation))
    })

  const connected = (operation: string, giveUpAt: bigint): Effect.Effect<void, LockBackendError> =>
    Effect.suspend(() => {
      if (session.client().isConnected()) return Effect.void
      const problem = session.problem()
      if (problem !== undefined) return Effect.fail(problem(operation))
      return Effect.andThen(awaiting(operation, giveUpAt, session.onConnection), connected(operation, giveUpAt))
    })

  const validity = (operation: string, giveUpAt: bigint): Effect.Effect<Validity, LockBackendError> =>
    Effect.suspend(() => {
      const known = session.validity()
      if (known !== undefined) return Effect.succeed(known)
      const problem = session.problem()
      if (problem !== undefined) return Effect.fail(problem(operation))
      return Effect.andThen(awaiting(operation, giveUpAt, session.onHeartbeat), validity(operation, giveUpAt))
    })

  const exchange = (operation: string, giveUpAt: bigint): Verb["exchange"] => (calls) => {
    const send = Effect.callback<ReadonlyArray<Reply>, Unanswered>((resume) => {
      session.client().send(calls(), (replies) => resume(replies === undefined ? unanswered : Effect.succeed(replies)))
    })
    return Effect.suspend(() =>
      session.client().isConnected() ? send : Effect.andThen(connected(operation, giveUpAt), send)
    )
  }

  return (operation, step) =>
    Effect.suspend(() => {
      const giveUpAt = now() + Duration.toNanosUnsafe(commandTimeout)
      const attempt = step({ exchange: exchange(operation, giveUpAt), validity: validity(operation, giveUpAt) })
      const persist: Effect.Effect<Effect.Success<typeof attempt>, LockBackendError> = Effect.catchTag(
        attempt,
        "Unanswered",
        () =>
          now() < giveUpAt
            ? persist
            : Effect.fail(failed(operation, "Timeout", "the connection ended before the answer"))
      )
      return persist
    })
}
