/**
 * The scripts as verbs of an attempt.
 */
import type { Grant, Validity } from "@dlock/core"
import { LockBackendError } from "@dlock/core"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type { Attempt } from "./RedisAttempts.ts"
import * as RedisCall from "./RedisCall.ts"
import type { Answer, Connection } from "./RedisClient.ts"
import type { Scripts } from "./RedisScripts.ts"
import { Code, fenceMillis } from "./RedisScripts.ts"
import * as RedisServer from "./RedisServer.ts"

/** A place in the line: where messages arrive, and the ticket, once there is one. */
export interface Place {
  readonly channel: string
  readonly ticket: string
}

/** What came of asking for a key. */
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
  readonly take: (attempt: Attempt, place?: Place) => Effect.Effect<Taken, LockBackendError>
  /** Prolongs the lease; `none` if it is not ours any more. */
  readonly renew: (attempt: Attempt) => Effect.Effect<Option.Option<Validity>, LockBackendError>
  /** The same, and tells the token. */
  readonly confirm: (attempt: Attempt) => Effect.Effect<Option.Option<Grant>, LockBackendError>
  /** Gives back, leaves the line, and voids what is still on its way; `false` if the key was not ours. */
  readonly giveBack: (attempt: Attempt) => Effect.Effect<boolean, LockBackendError>
}

/** By how much longer a request is valid than somebody waits for it: cluster nodes do not have one clock. */
const slackMicros = 1_000_000

/** The age from which a token is given a new life, in ns: half of the time that it has beyond its lease. */
const fenceIsOld = BigInt(fenceMillis) * 500_000n

/** Whether a renewal is to prolong the life of the token as well. */
export const isFenceOld = (attempt: Attempt, now: bigint): boolean => now - attempt.fencedAt > fenceIsOld

/** How often a request may meet a server whose clock is not what we took it for. */
const maxStale = 3

const protocol = (operation: string, detail: string) =>
  Effect.fail(new LockBackendError({ backend: RedisCall.backendName, operation, reason: "Protocol", detail }))

const unexpected = (operation: string, reply: unknown) =>
  protocol(operation, `unexpected answer ${JSON.stringify(reply)}`)

const givenBack = protocol("acquire", "this attempt was given back before")

const grantOf = (attempt: Attempt, sentAt: bigint, token: string): Grant => {
  attempt.fencedAt = sentAt
  return { validFrom: sentAt, ttl: attempt.ttl, fencingToken: BigInt(token) }
}

const released = ({ reply }: Answer) =>
  reply === 0 || reply === 1 ? Effect.succeed(reply === 1) : unexpected("release", reply)

const granted = (attempt: Attempt, sentAt: bigint, token: string): Effect.Effect<Taken> =>
  Effect.succeed({ _tag: "Granted", grant: grantOf(attempt, sentAt, token) })

const micros = (nanos: bigint): number => Number(nanos) / 1000

/** `clockAhead`: the server's clock minus our monotonic one, in µs. */
export const make = (client: Connection, scripts: Scripts, clockAhead: number): Verbs => {
  let ahead = clockAhead

  const take = (attempt: Attempt, place?: Place, stale = 0): Effect.Effect<Taken, LockBackendError> => {
    if (attempt.isOver) return givenBack
    if (stale === maxStale) return protocol("acquire", "the server's clock jumps")
    const call: RedisCall.Call = {
      operation: "acquire",
      script: scripts.acquire,
      common: attempt.all,
      limit: attempt.limit,
      isWanted: () => !attempt.isOver,
      args: (sentAt) => {
        const validUntil = Math.ceil(micros(sentAt + attempt.limit) + ahead + slackMicros)
        attempt.wasSent = true
        attempt.unanswered++
        attempt.validUntil = Math.max(attempt.validUntil, validUntil)
        return place === undefined ? [`${validUntil}`] : [`${validUntil}`, place.channel, place.ticket]
      },
      onAnswer: () => {
        attempt.unanswered--
      }
    }
    return Effect.flatMap(RedisCall.run(client, call), ({ reply, sentAt }) => {
      if (typeof reply === "string") {
        ahead = Number(reply) - micros(sentAt)
        return granted(attempt, sentAt, reply)
      }
      return explain(attempt, place, stale, reply, sentAt)
    })
  }

  /** What an answer means that is not a plain grant. */
  const explain = (
    attempt: Attempt,
    place: Place | undefined,
    stale: number,
    reply: unknown,
    sentAt: bigint
  ): Effect.Effect<Taken, LockBackendError> => {
    const [code, time, first, rank, holderMillis]: Array<unknown> = Array.isArray(reply) ? reply : []
    ahead = RedisServer.clockAhead(time, sentAt) ?? ahead
    switch (code) {
      case Code.granted:
        return granted(attempt, sentAt, String(first))
      case Code.waiting:
        return Effect.succeed({
          _tag: "Waiting",
          ticket: String(first),
          rank: Number(rank),
          holderMillis: Number(holderMillis)
        })
      case Code.void:
        return givenBack
      case Code.stale:
        return take(attempt, place, stale + 1)
      default:
        return unexpected("acquire", reply)
    }
  }

  const confirm: Verbs["confirm"] = (attempt) => {
    const call: RedisCall.Call = {
      operation: "renew",
      script: scripts.confirm,
      common: attempt.lockAndFence,
      limit: attempt.limit
    }
    return Effect.flatMap(RedisCall.run(client, call), ({ reply, sentAt }) => {
      if (typeof reply === "string") return Effect.succeedSome(grantOf(attempt, sentAt, reply))
      return reply === null ? Effect.succeedNone : unexpected("renew", reply)
    })
  }

  const renew: Verbs["renew"] = (attempt) => {
    if (isFenceOld(attempt, client.now())) return confirm(attempt)
    const call: RedisCall.Call = {
      operation: "renew",
      script: scripts.renew,
      common: attempt.lock,
      limit: attempt.limit
    }
    return Effect.flatMap(RedisCall.run(client, call), ({ reply, sentAt }) => {
      if (reply === 1) return Effect.succeedSome({ validFrom: sentAt, ttl: attempt.ttl })
      return reply === 0 ? Effect.succeedNone : unexpected("renew", reply)
    })
  }

  const giveBack = (attempt: Attempt): Effect.Effect<boolean, LockBackendError> => {
    attempt.isOver = true
    const call: RedisCall.Call = {
      operation: "release",
      script: scripts.release,
      common: attempt.all,
      limit: attempt.limit,
      args: () => [attempt.unanswered === 0 ? "0" : `${attempt.validUntil}`]
    }
    return Effect.flatMap(RedisCall.run(client, call), released)
  }

  return { take, renew, confirm, giveBack }
}
