/**
 * Waiting until replicas have a lock.
 *
 * WAIT holds up its whole connection, so it has one of its own to each master, and those who come while one is under way
 * share the next. It counts the replicas that have what was written over the same connection before; on a fresh one it
 * counts them all. So the lock is confirmed over that connection first, which also shows that it leads to the master
 * that has the lock, and nothing counts that was answered after a reconnect.
 */
import type { Grant } from "@dlock/core"
import { LockBackendError } from "@dlock/core"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Attempt } from "./RedisAttempts.ts"
import * as RedisCall from "./RedisCall.ts"
import type { Connection, RedisClient } from "./RedisClient.ts"
import type { Scripts } from "./RedisScripts.ts"
import type { Verbs } from "./RedisVerbs.ts"
import * as RedisVerbs from "./RedisVerbs.ts"

/** How many replicas must have a lock, and how long they may take. */
export interface Demand {
  readonly count: number
  readonly timeout: Duration.Duration
}

/** How many replicas have what was written in an epoch of a connection. */
interface Reached {
  readonly epoch: number
  readonly replicas: number
}

/** The connection to one master, with the WAIT that was not sent yet. */
interface Barrier {
  readonly connection: Connection
  readonly verbs: Verbs
  readonly oneAtATime: Semaphore.Semaphore
  next: Deferred.Deferred<Reached, LockBackendError> | undefined
}

/** How often a connection may break in the middle before somebody is told. */
const maxTries = 3

const refused = (detail: string) =>
  Effect.fail(
    new LockBackendError({ backend: RedisCall.backendName, operation: "acquire", reason: "Rejected", detail })
  )

/** Makes a grant wait for replicas; it fails when they do not have the lock in time, which then is to be given back. */
export const make = Effect.fnUntraced(function*(
  client: RedisClient,
  scripts: Scripts,
  settings: RedisVerbs.Settings,
  demand: Demand,
  commandTimeout: Duration.Duration
) {
  const scope = yield* Effect.scope
  const barriers = new Map<string, Barrier>()
  const limit = Duration.toMillis(Duration.sum(demand.timeout, commandTimeout))
  const args = [`${demand.count}`, `${Math.ceil(Duration.toMillis(demand.timeout))}`]

  const opening = Semaphore.makeUnsafe(1)
  const barrierFor = (attempt: Attempt) =>
    opening.withPermit(Effect.gen(function*() {
      const { name, open } = yield* client.masterOf(attempt.key)
      const known = barriers.get(name)
      if (known !== undefined) return known
      const connection = yield* Scope.provide(open, scope)
      const barrier: Barrier = {
        connection,
        verbs: RedisVerbs.make(connection, scripts, settings),
        oneAtATime: Semaphore.makeUnsafe(1),
        next: undefined
      }
      barriers.set(name, barrier)
      return barrier
    })).pipe(Effect.mapError((failure) => RedisCall.toError("acquire", failure)))

  const sendWait = (barrier: Barrier) =>
    Effect.suspend(() => {
      barrier.next = undefined
      const epoch = barrier.connection.epoch()
      return Effect.map(
        barrier.connection.send({ command: "wait", args, limit }),
        ({ reply }): Reached => ({ epoch, replicas: Number(reply) })
      )
    }).pipe(Effect.mapError((failure) => RedisCall.toError("acquire", failure)))

  /** Sees to it that a WAIT will be sent, also when whoever asked for it is interrupted at that moment. */
  const nextWait = (barrier: Barrier) =>
    Effect.uninterruptible(Effect.suspend(() => {
      if (barrier.next !== undefined) return Effect.succeed(barrier.next)
      const next = Deferred.makeUnsafe<Reached, LockBackendError>()
      barrier.next = next
      return Effect.as(
        Effect.forkIn(barrier.oneAtATime.withPermit(Deferred.into(sendWait(barrier), next)), scope),
        next
      )
    }))

  return Effect.fnUntraced(function*(attempt: Attempt): Effect.fn.Return<Grant, LockBackendError> {
    const barrier = yield* barrierFor(attempt)
    for (let tries = 0; tries < maxTries; tries++) {
      yield* Effect.ignore(barrier.connection.ready)
      const epoch = barrier.connection.epoch()
      const confirmed = yield* barrier.verbs.confirm(attempt)
      if (Option.isNone(confirmed)) return yield* refused("the lock was gone before replicas had it")
      const reached = yield* Deferred.await(yield* nextWait(barrier))
      if (reached.epoch !== epoch) continue
      if (reached.replicas >= demand.count) return confirmed.value
      return yield* refused(`${reached.replicas} of ${demand.count} replicas had the lock in time`)
    }
    return yield* refused("the connection breaks before replicas have the lock")
  })
})
