/**
 * The backend over a connection.
 */
import type { Grant, LockBackend, LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Attempt } from "./RedisAttempts.ts"
import * as RedisAttempts from "./RedisAttempts.ts"
import { backendName } from "./RedisCall.ts"
import type { RedisClient } from "./RedisClient.ts"
import { reserved } from "./RedisKeys.ts"
import * as RedisLine from "./RedisLine.ts"
import * as RedisReplicas from "./RedisReplicas.ts"
import * as RedisScripts from "./RedisScripts.ts"
import * as RedisServer from "./RedisServer.ts"
import * as RedisVerbs from "./RedisVerbs.ts"
import * as RedisWakeUps from "./RedisWakeUps.ts"

type Backend = LockBackend["Service"]

/** The longest ttl: Redis adds the time of day to it and must not overflow. */
const maxTtl = Duration.days(365_000)

const check: Backend["check"] = (key, ttl) => {
  if (key.includes(reserved)) return `"${reserved}" marks the names of the lock's own keys`
  return Duration.isGreaterThan(ttl, maxTtl) ? "Redis can not count so long a ttl" : undefined
}

/** What the backend does with its connection. */
export interface Settings {
  readonly isCluster: boolean
  readonly keyPrefix: string
  readonly commandTimeout: Duration.Duration
  readonly waitReplicas: RedisReplicas.Demand | undefined
}

export const make = Effect.fnUntraced(function*(
  client: RedisClient,
  { commandTimeout, isCluster, keyPrefix, waitReplicas }: Settings
): Effect.fn.Return<Backend, LockBackendError, Scope.Scope> {
  const { clockAhead } = yield* RedisServer.inspect(client, isCluster ? "cluster" : "standalone", commandTimeout)
  const scripts = RedisScripts.make(!isCluster)
  const attempts = RedisAttempts.make(client.keyPrefix + keyPrefix, commandTimeout)
  const wakeUps = yield* RedisWakeUps.make(client, {
    channelPrefix: keyPrefix,
    limit: commandTimeout,
    countReceivers: !isCluster
  })
  const means: RedisVerbs.Settings = { isCluster, channel: wakeUps.channel, clockAhead }
  const verbs = RedisVerbs.make(client, scripts, means)
  const replicated = waitReplicas && (yield* RedisReplicas.make(client, scripts, means, waitReplicas, commandTimeout))

  /** A grant that replicas have too, where that is asked for. */
  const settled = (attempt: Attempt, grant: Grant): Effect.Effect<Grant, LockBackendError> =>
    replicated === undefined ? Effect.succeed(grant) : replicated(attempt)

  const tryAcquire: Backend["tryAcquire"] = (request) =>
    Effect.suspend(() => {
      const attempt = attempts.of(request)
      return Effect.flatMap(verbs.take(attempt), (taken) => {
        if (taken._tag === "Granted") return Effect.asSome(settled(attempt, taken.grant))
        // A request that was sent before this one and got lost may still arrive, and nobody would know.
        if (attempt.unanswered > 0) return Effect.as(release(request), Option.none())
        attempts.end(request)
        return Effect.succeedNone
      })
    })

  const acquire: Backend["acquire"] = (request) =>
    Effect.suspend(() => {
      const attempt = attempts.of(request)
      const granted = RedisLine.acquire(verbs, wakeUps, attempt)
      return replicated === undefined ? granted : Effect.andThen(granted, replicated(attempt))
    })

  const release: Backend["release"] = (request) =>
    Effect.suspend(() => {
      const attempt = attempts.of(request)
      attempt.isOver = true
      if (!attempt.wasSent) return Effect.succeed(false)
      return Effect.map(verbs.giveBack(attempt), (wasOurs) => {
        attempts.end(request)
        return wasOurs
      })
    })

  return {
    name: backendName,
    tenure: "lease",
    check,
    tryAcquire,
    acquire,
    renew: (request) => Effect.suspend(() => verbs.renew(attempts.of(request))),
    release
  }
})
