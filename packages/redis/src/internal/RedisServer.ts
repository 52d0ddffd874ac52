/**
 * What has to be known of a server before locks are put on it.
 */
import { LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { backendName, toError } from "./RedisCall.ts"
import type { Failure, RedisClient } from "./RedisClient.ts"

const asError = (failure: Failure) => toError("connect", failure)

const unsupported = (detail: string) =>
  new LockBackendError({ backend: backendName, operation: "connect", reason: "Unsupported", detail })

const field = (info: string, name: string): string | undefined => new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(info)?.[1]

/** What TIME answered as the server's clock minus our monotonic one, in µs. */
export const clockAhead = (time: unknown, askedAt: bigint): number | undefined => {
  const [seconds, micros]: Array<unknown> = Array.isArray(time) ? time : []
  const ahead = Number(seconds) * 1_000_000 + Number(micros) - Number(askedAt) / 1000
  return Number.isFinite(ahead) ? ahead : undefined
}

/** What is known of a server. */
export interface Server {
  /** Its clock minus our monotonic one, in µs. */
  readonly clockAhead: number
  /** Which process it is, if it tells. */
  readonly runId: string | undefined
}

/**
 * Connects, and looks at the server: fails if it can not carry locks, warns if it may throw them away. A server that
 * does not tell about itself is taken as it is.
 */
export const inspect = Effect.fnUntraced(function*(
  client: RedisClient,
  expected: "cluster" | "standalone",
  limit: Duration.Duration
): Effect.fn.Return<Server, LockBackendError> {
  yield* client.connect.pipe(
    Effect.mapError(asError),
    Effect.timeoutOrElse({ duration: limit, orElse: () => Effect.fail(asError({ _tag: "Late" })) })
  )
  const limitMillis = Duration.toMillis(limit)
  const { reply } = yield* client.send({ command: "info", args: [], limit: limitMillis }).pipe(
    Effect.catchIf((failure) => failure._tag === "Failed", () => Effect.succeed({ reply: "" })),
    Effect.mapError(asError)
  )
  const info = String(reply)

  const version = field(info, "redis_version")
  if (version !== undefined && Number.parseInt(version, 10) < 5) {
    return yield* unsupported(`Redis 5 or newer is needed, this is ${version}`)
  }
  // Valkey calls it by another name.
  const mode = field(info, "redis_mode") ?? field(info, "server_mode") ?? expected
  if (mode !== expected) {
    const right = mode === "standalone" ? "single" : mode
    return yield* unsupported(`the server runs in ${mode} mode, so the option "mode" has to be "${right}"`)
  }
  const policy = field(info, "maxmemory_policy") ?? "noeviction"
  if (policy !== "noeviction" && field(info, "maxmemory") !== "0") {
    yield* Effect.logWarning(
      `redis: with maxmemory-policy ${policy} a full server throws locks away while they are held; set noeviction`
    )
  }

  const time = yield* Effect.mapError(client.send({ command: "time", args: [], limit: limitMillis }), asError)
  const ahead = clockAhead(time.reply, time.sentAt)
  if (ahead === undefined) return yield* unsupported("the server does not tell its time")
  return { clockAhead: ahead, runId: field(info, "run_id") }
})
