/**
 * How requests are sent: over the connection of now, or the next one, and again while they are not answered, for as long
 * as a command may take.
 */
import { Calls, Errors } from "@dlock/core/backend"
import type { Validity } from "@dlock/core/LockBackend"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { errors, passes } from "./errors.ts"
import type { Call, Reply } from "./requests.ts"
import type { Session } from "./session.ts"

/** The first try and the one after a connection that ended follow each other without a pause. */
const ways = 2

/** Runs an attempt again while its failure passes by itself, or is one of `others`. `left` is the time for the attempt. */
export const repeat = <A>(
  session: Session,
  attempt: (left: number) => Effect.Effect<A, LockBackendError>,
  ...others: ReadonlyArray<LockBackendError>
): Effect.Effect<A, LockBackendError> =>
  Calls.repeat(session.timers, {
    limit: session.settings.commandTimeout,
    ways,
    again: (error) => Errors.passes(error) || others.includes(error)
  }, attempt)

const late = ({ client, settings }: Session, operation: string) => (): LockBackendError =>
  client.isConnected
    ? errors.timeout(operation, { at: settings.servers, detail: "no answer" })
    : errors.unreachable(operation, { at: settings.servers, detail: client.trouble ?? "no connection" })

const ended = ({ settings }: Session, operation: string): LockBackendError =>
  errors.timeout(operation, { at: settings.servers, detail: "the connection ended before the answer" })

/** Waits for what `look` finds, which looks again whenever the session changes. */
const untilFound = <A>(
  session: Session,
  operation: string,
  limit: number,
  look: () => A | undefined
): Effect.Effect<A, LockBackendError> =>
  Calls.once(session.timers, {
    limit,
    send: (settle) => {
      const lookAgain = (): void => {
        const found = look()
        if (found !== undefined) settle(Exit.succeed(found))
        else if (session.problem !== undefined) settle(Exit.fail(session.problem(operation)))
        else session.onChange.add(lookAgain)
      }
      lookAgain()
      return () => session.onChange.delete(lookAgain)
    },
    onLate: late(session, operation)
  })

/** One try, once there is a connection. */
const onceConnected = <A>(
  session: Session,
  operation: string,
  left: number,
  send: (settle: (exit: Exit.Exit<A, LockBackendError>) => void) => void
): Effect.Effect<A, LockBackendError> =>
  Effect.suspend(() => {
    const { client, timers } = session
    const end = timers.now() + left
    const attempt = Effect.suspend(() =>
      Calls.once(timers, { limit: Math.max(end - timers.now(), 1), send, onLate: late(session, operation) })
    )
    if (client.isConnected) return attempt
    return Effect.andThen(untilFound(session, operation, left, () => session.client.isConnected || undefined), attempt)
  })

/** Sends calls in one go. They are made right before they are sent. */
export const askOnce = (
  session: Session,
  operation: string,
  left: number,
  calls: () => ReadonlyArray<Call>
): Effect.Effect<ReadonlyArray<Reply>, LockBackendError> =>
  onceConnected(session, operation, left, (settle) =>
    session.client.send(calls(), (replies) => {
      const passing = replies?.find(({ code }) => passes(code))
      if (replies === undefined) return settle(Exit.fail(ended(session, operation)))
      if (passing === undefined) return settle(Exit.succeed(replies))
      const detail = `the server is not ready (error ${passing.code})`
      settle(Exit.fail(errors.unreachable(operation, { at: session.settings.servers, detail })))
    }))

/** Sends calls that may be carried out more than once. */
export const ask = (
  session: Session,
  operation: string,
  ...calls: ReadonlyArray<Call>
): Effect.Effect<ReadonlyArray<Reply>, LockBackendError> =>
  repeat(session, (left) => askOnce(session, operation, left, () => calls))

/** How long holds are good, as the latest heartbeat says, which is waited for when it is overdue. */
export const validity = (session: Session, operation: string): Effect.Effect<Validity, LockBackendError> =>
  Effect.suspend(() => untilFound(session, operation, session.settings.commandTimeout, () => session.validity))

/** The same, after a heartbeat that is sent now and answered. */
export const freshValidity = (session: Session, operation: string): Effect.Effect<Validity, LockBackendError> =>
  Effect.suspend(() => {
    const askedAt = session.timers.now()
    const confirmed = repeat(
      session,
      (left) =>
        onceConnected<void>(
          session,
          operation,
          left,
          (settle) =>
            session.confirm(askedAt, (answered) => settle(answered ? Exit.void : Exit.fail(ended(session, operation))))
        )
    )
    return Effect.andThen(confirmed, validity(session, operation))
  })
