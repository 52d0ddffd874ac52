/**
 * The scripts as verbs of an attempt.
 *
 * A request that nobody waits for any more may reach the server late: the connection was frozen, or somebody's driver
 * sent it again. So a request to take a key says until when it is valid, by the server's clock, and is refused
 * afterwards; and an attempt that is given back before then leaves a mark that lives as long. An ordinary release,
 * before which every request was answered, leaves nothing behind.
 */
import type { Grant, LockRequest } from "@dlock/core"
import { LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as RedisCall from "./RedisCall.ts"
import type { RedisClient } from "./RedisClient.ts"
import { keysOf } from "./RedisKeys.ts"
import type { Scripts } from "./RedisScripts.ts"
import * as RedisScripts from "./RedisScripts.ts"
import * as RedisServer from "./RedisServer.ts"

/** A place in the line: where messages arrive, and the ticket, once there is one. */
export interface Place {
  readonly channel: string
  readonly ticket: string
}

/** What came of an attempt to take a key. */
export type Taken =
  | { readonly _tag: "Granted", readonly grant: Grant }
  | {
    readonly _tag: "Waiting"
    readonly ticket: string
    readonly rank: number
    /** What is left of the holder's lease; negative when it has no limit. */
    readonly holderMillis: number
  }

export interface Verbs {
  /** Takes the key if it is free; with a place, stands in line otherwise. */
  readonly take: (request: LockRequest, place?: Place) => Effect.Effect<Taken, LockBackendError>
  /** Prolongs the lease; `none` if it is not ours any more. */
  readonly prolong: (request: LockRequest) => Effect.Effect<Option.Option<Grant>, LockBackendError>
  /** Gives back, leaves the line, and voids what is still on its way. */
  readonly giveBack: (request: LockRequest) => Effect.Effect<boolean, LockBackendError>
}

interface Attempt {
  readonly keys: ReadonlyArray<string>
  /** How long the lease lives, as it is really asked for. */
  readonly ttl: Duration.Duration
  /** The lives of the lease and of its token, in ms, as the scripts take them. */
  readonly lives: readonly [string, string]
  readonly limit: Duration.Duration
  /** Whether the server was ever asked for the key. */
  wasSent: boolean
  /** How many times it was asked and has not answered. */
  unanswered: number
  /** Until when one of these requests is valid, in µs of the server's clock. */
  validUntil: number
  /** Whether it was given back. */
  isOver: boolean
}

/** By how much longer a request is valid than somebody waits for it: cluster nodes do not have one clock. */
const slackMicros = 1_000_000

/** How often a request may meet a server whose clock is not what we took it for. */
const maxStale = 3

const protocol = (operation: string, detail: string) =>
  Effect.fail(new LockBackendError({ backend: RedisCall.backendName, operation, reason: "Protocol", detail }))

const unexpected = (operation: string, reply: unknown) =>
  protocol(operation, `unexpected answer ${JSON.stringify(reply)}`)

const givenBack = protocol("acquire", "this attempt was given back before")

const grant = (attempt: Attempt, sentAt: bigint, token: string): Grant => ({
  validFrom: sentAt,
  ttl: attempt.ttl,
  fencingToken: BigInt(token)
})

const granted = (attempt: Attempt, sentAt: bigint, token: string): Taken => ({
  _tag: "Granted",
  grant: grant(attempt, sentAt, token)
})

export const make = (
  client: RedisClient,
  options: {
    readonly keyPrefix: string
    readonly commandTimeout: Duration.Duration
    readonly scripts: Scripts
    readonly clockAhead: number
  }
): Verbs => {
  const attempts = new WeakMap<LockRequest, Attempt>()
  const { scripts } = options
  /** The server's clock minus our monotonic one, in µs, as of the last answer. */
  let ahead = options.clockAhead

  const attemptOf = (request: LockRequest): Attempt => {
    const known = attempts.get(request)
    if (known !== undefined) return known
    const keys = keysOf(client.keyPrefix + options.keyPrefix + request.key)
    const ttlMillis = Math.max(1, Math.ceil(Duration.toMillis(request.ttl)))
    const attempt: Attempt = {
      keys: [keys.lock, keys.line, keys.waiters, keys.fence, keys.voidPrefix + request.owner],
      ttl: Duration.millis(ttlMillis),
      lives: [`${ttlMillis}`, `${ttlMillis + RedisScripts.fenceMillis}`],
      limit: Duration.min(options.commandTimeout, request.ttl),
      wasSent: false,
      unanswered: 0,
      validUntil: 0,
      isOver: false
    }
    attempts.set(request, attempt)
    return attempt
  }

  const take = Effect.fnUntraced(function*(request: LockRequest, place?: Place) {
    const attempt = attemptOf(request)
    if (attempt.isOver) return yield* givenBack
    const inLine = place === undefined ? [] : [place.channel, place.ticket]
    const limitMicros = Duration.toMillis(attempt.limit) * 1000
    const call: RedisCall.Call = {
      operation: "acquire",
      script: scripts.acquire,
      keys: attempt.keys,
      limit: attempt.limit,
      args: (sentAt) => {
        const validUntil = Math.ceil(Number(sentAt / 1000n) + ahead + limitMicros + slackMicros)
        attempt.wasSent = true
        attempt.unanswered++
        attempt.validUntil = Math.max(attempt.validUntil, validUntil)
        return [request.owner, ...attempt.lives, `${validUntil}`, ...inLine]
      },
      onAnswer: () => {
        attempt.unanswered--
      }
    }
    for (let stale = 0; stale < maxStale; stale++) {
      const { reply, sentAt } = yield* RedisCall.run(client, call)
      if (typeof reply === "string") {
        ahead = Number(reply) - Number(sentAt / 1000n)
        return granted(attempt, sentAt, reply)
      }
      if (!Array.isArray(reply)) return yield* unexpected("acquire", reply)
      const [code, time, first, rank, holderMillis]: Array<unknown> = reply
      ahead = RedisServer.clockAhead(time, sentAt)
      switch (code) {
        case RedisScripts.Code.granted:
          return granted(attempt, sentAt, String(first))
        case RedisScripts.Code.waiting:
          return {
            _tag: "Waiting",
            ticket: String(first),
            rank: Number(rank),
            holderMillis: Number(holderMillis)
          } satisfies Taken
        case RedisScripts.Code.void:
          return yield* givenBack
        case RedisScripts.Code.stale:
          break
        default:
          return yield* unexpected("acquire", reply)
      }
    }
    return yield* protocol("acquire", "the server's clock jumps")
  })

  const prolong = Effect.fnUntraced(function*(request: LockRequest) {
    const attempt = attemptOf(request)
    const { reply, sentAt } = yield* RedisCall.run(client, {
      operation: "renew",
      script: scripts.renew,
      keys: attempt.keys,
      limit: attempt.limit,
      args: () => [request.owner, ...attempt.lives]
    })
    if (reply === null) return Option.none<Grant>()
    if (typeof reply !== "string") return yield* unexpected("renew", reply)
    return Option.some(grant(attempt, sentAt, reply))
  })

  const giveBack = Effect.fnUntraced(function*(request: LockRequest) {
    const attempt = attemptOf(request)
    attempt.isOver = true
    if (!attempt.wasSent) return false
    const { reply } = yield* RedisCall.run(client, {
      operation: "release",
      script: scripts.release,
      keys: attempt.keys,
      limit: attempt.limit,
      args: () => [request.owner, attempt.unanswered === 0 ? "0" : `${attempt.validUntil}`]
    })
    if (reply !== 0 && reply !== 1) return yield* unexpected("release", reply)
    return reply === 1
  })

  return { take, prolong, giveBack }
}
