/**
 * The backend over a connection.
 */
import type { LockBackend, LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as RedisAttempts from "./RedisAttempts.ts"
import { backendName } from "./RedisCall.ts"
import type { RedisClient } from "./RedisClient.ts"
import { reserved } from "./RedisKeys.ts"
import * as RedisLine from "./RedisLine.ts"
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

export const make = Effect.fnUntraced(function*(
  client: RedisClient,
  options: { readonly isCluster: boolean, readonly keyPrefix: string, readonly commandTimeout: Duration.Duration }
): Effect.fn.Return<Backend, LockBackendError, Scope.Scope> {
  const { commandTimeout, isCluster, keyPrefix } = options
  const { clockAhead } = yield* RedisServer.inspect(client, isCluster ? "cluster" : "standalone", commandTimeout)
  const verbs = RedisVerbs.make(client, RedisScripts.make(!isCluster), clockAhead)
  const attempts = RedisAttempts.make(client.keyPrefix + keyPrefix, commandTimeout)
  const wakeUps = yield* RedisWakeUps.make(client, {
    channelPrefix: keyPrefix,
    limit: commandTimeout,
    countReceivers: !isCluster
  })

  const tryAcquire: Backend["tryAcquire"] = (request) =>
    Effect.suspend(() => {
      const attempt = attempts.begin(request)
      return Effect.flatMap(verbs.take(attempt), (taken) => {
        if (taken._tag === "Granted") return Effect.succeedSome(taken.grant)
        // A request that was sent before this one and got lost may still arrive, and nobody would know.
        if (attempt.unanswered > 0) return Effect.as(release(request), Option.none())
        attempts.end(request)
        return Effect.succeedNone
      })
    })

  const release: Backend["release"] = (request) =>
    Effect.suspend(() => {
      const attempt = attempts.find(request)
      if (attempt.wasSent) {
        return Effect.onExit(verbs.giveBack(attempt), (exit) =>
          Effect.sync(() => Exit.isSuccess(exit) ? attempts.end(request) : attempts.leave(request, attempt)))
      }
      attempt.isOver = true
      attempts.leave(request, attempt)
      return Effect.succeed(false)
    })

  return {
    name: backendName,
    tenure: "lease",
    check,
    tryAcquire,
    acquire: (request) => Effect.suspend(() => RedisLine.acquire(verbs, wakeUps, attempts.begin(request))),
    renew: (request) => Effect.suspend(() => verbs.renew(attempts.find(request))),
    release
  }
})
