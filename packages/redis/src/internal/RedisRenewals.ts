/**
 * Renewals that fall due together are one command: the watchdog wakes up for many leases at a time.
 */
import type { LockBackendError, Validity } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Attempt } from "./RedisAttempts.ts"
import * as RedisCall from "./RedisCall.ts"
import type { Answer, Connection } from "./RedisClient.ts"
import type { Scripts } from "./RedisScripts.ts"
import type { Verbs } from "./RedisVerbs.ts"
import { isFenceOld } from "./RedisVerbs.ts"

type Renewal = Effect.Effect<Option.Option<Validity>, LockBackendError>

/** One who waits for the answer. */
interface Asked {
  readonly attempt: Attempt
  readonly answer: (renewal: Renewal) => void
}

/** The most leases in one command, so that others do not wait for long: the server does one command at a time. */
const most = 100

/** Prolongs leases as `Verbs.renew` does, many at a time. Not for a cluster, where a command has keys of one slot only. */
export const make = Effect.fnUntraced(function*(
  client: Connection,
  scripts: Scripts,
  verbs: Verbs
): Effect.fn.Return<(attempt: Attempt) => Renewal, never, Scope.Scope> {
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  /** Those who still take others in, by how long they wait for an answer. */
  const open = new Map<bigint, Array<Asked>>()

  const call = (batch: ReadonlyArray<Asked>, limit: bigint) =>
    RedisCall.run(client, {
      operation: "renew",
      script: scripts.renewMany,
      common: [
        `${batch.length}`,
        ...batch.map(({ attempt }) => attempt.key),
        ...batch.flatMap(({ attempt }) => [attempt.owner, `${Duration.toMillis(attempt.ttl)}`])
      ],
      limit
    })

  const renewalOf = (
    { attempt }: Asked,
    index: number,
    exit: Exit.Exit<Answer, LockBackendError>
  ): Renewal => {
    if (Exit.isFailure(exit)) {
      // What the server refuses, it may refuse because of another's key.
      const error = Exit.findErrorOption(exit)
      const refused = Option.isSome(error) && error.value.reason !== "Timeout" && error.value.reason !== "Unreachable"
      return refused ? verbs.renew(attempt) : Effect.failCause(exit.cause)
    }
    const { reply, sentAt } = exit.value
    const mine: unknown = Array.isArray(reply) ? reply[index] : undefined
    if (mine === 1) return Effect.succeedSome({ validFrom: sentAt, ttl: attempt.ttl })
    return mine === 0 ? Effect.succeedNone : verbs.renew(attempt)
  }

  const send = (batch: ReadonlyArray<Asked>, limit: bigint): Effect.Effect<void> => {
    const [first] = batch
    if (first !== undefined && batch.length === 1) return Effect.sync(() => first.answer(verbs.renew(first.attempt)))
    return Effect.flatMap(
      Effect.exit(call(batch, limit)),
      (exit) => Effect.sync(() => batch.forEach((asked, i) => asked.answer(renewalOf(asked, i, exit))))
    )
  }

  /** A batch that is sent when everybody who is due in this turn has had the time to join it. */
  const begin = (limit: bigint): Array<Asked> => {
    const batch: Array<Asked> = []
    const close = Effect.sync(() => {
      if (open.get(limit) === batch) open.delete(limit)
    })
    open.set(limit, batch)
    fork(Effect.yieldNow.pipe(
      Effect.andThen(close),
      Effect.andThen(Effect.suspend(() => send(batch, limit))),
      Effect.onInterrupt(() => Effect.sync(() => batch.forEach(({ answer }) => answer(Effect.interrupt))))
    ))
    return batch
  }

  return (attempt) =>
    Effect.suspend(() => {
      if (isFenceOld(attempt, client.now())) return verbs.confirm(attempt)
      return Effect.flatten(Effect.callback<Renewal>((resume) => {
        const { limit } = attempt
        const joined = open.get(limit)
        const batch = joined === undefined || joined.length >= most ? begin(limit) : joined
        batch.push({ attempt, answer: (renewal) => resume(Effect.succeed(renewal)) })
      }))
    })
})
