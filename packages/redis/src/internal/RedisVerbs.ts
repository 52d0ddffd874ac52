/**
 * The scripts as verbs of an attempt.
 */
import type { Grant, Validity } from "@dlock/core"
import { LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type { Attempt } from "./RedisAttempts.ts"
import { answered, asked, markUntil } from "./RedisAttempts.ts"
import * as RedisCall from "./RedisCall.ts"
import type { Connection } from "./RedisClient.ts"
import { fence, fenceInSlot, keysOf } from "./RedisKeys.ts"
import type { Answered, Verb } from "./RedisQueue.ts"
import type { Scripts } from "./RedisScripts.ts"
import { Code, noTicket } from "./RedisScripts.ts"

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
  /** Takes the key if it is free; with a ticket, or '' to get one, stands in line otherwise. */
  readonly take: (attempt: Attempt, ticket?: string) => Effect.Effect<Taken, LockBackendError>
  /** Prolongs the lease; `none` if it is not ours any more. */
  readonly renew: (attempt: Attempt) => Effect.Effect<Option.Option<Validity>, LockBackendError>
  /** The same, and tells the token. */
  readonly confirm: (attempt: Attempt) => Effect.Effect<Option.Option<Grant>, LockBackendError>
  /** Gives back, leaves the line, and voids what is still on its way; `false` if the key was not ours. */
  readonly giveBack: (attempt: Attempt) => Effect.Effect<boolean, LockBackendError>
}

/** What the verbs need to know. */
export interface Settings {
  readonly isCluster: boolean
  /** Where messages for those who wait arrive. */
  readonly channel: string
  /** The server's clock minus our monotonic one, in µs. */
  readonly clockAhead: number
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

const waiting: Taken = { _tag: "Waiting", ticket: "", rank: 0, holderMillis: -1 }

const micros = (nanos: bigint): number => Number(nanos) / 1000

const ttlOf = (attempt: Attempt): string => `${Duration.toMillis(attempt.ttl)}`

/** The token of one who was asked for the key before is a new one, and the old one as good: nobody has had one since. */
const grantOf = (attempt: Attempt, sentAt: bigint, token: bigint): Grant => {
  attempt.token = token
  return { validFrom: sentAt, ttl: attempt.ttl, fencingToken: token }
}

const keysFor = (attempt: Attempt): ReadonlyArray<string> => {
  const keys = keysOf(attempt.key)
  return [keys.lock, keys.line, keys.waiters, keys.void]
}

export const make = (client: Connection, scripts: Scripts, settings: Settings): Verbs => {
  const { channel, isCluster } = settings
  let ahead = settings.clockAhead

  const asking = (fences: ReadonlyArray<string>, args: ReadonlyArray<string>): Verb => ({
    script: scripts.acquire,
    keys: fences,
    args,
    joins: !isCluster,
    isFirst: false
  })
  const taking = asking([fence], [""])
  const standing = asking([fence], [channel])
  const takingOf = (key: string, stands: boolean): Verb => {
    if (!isCluster) return stands ? standing : taking
    return asking([fenceInSlot(key)], [stands ? channel : ""])
  }
  const renewing: Verb = { script: scripts.renew, keys: [], args: [], joins: !isCluster, isFirst: false }
  const confirming: Verb = { script: scripts.confirm, keys: [], args: [], joins: false, isFirst: false }
  const releasing: Verb = { script: scripts.release, keys: [], args: [], joins: !isCluster, isFirst: true }

  const take = (attempt: Attempt, ticket: string = noTicket, stale = 0): Effect.Effect<Taken, LockBackendError> => {
    if (attempt.isOver) return givenBack
    if (stale === maxStale) return protocol("acquire", "the server's clock jumps")
    return RedisCall.run(client, {
      operation: "acquire",
      verb: takingOf(attempt.key, ticket !== noTicket),
      keys: keysFor(attempt),
      limit: attempt.limit,
      isWanted: () => !attempt.isOver,
      args: (sentAt) => {
        const validUntil = Math.ceil(micros(sentAt) + attempt.limit * 1000 + ahead + slackMicros)
        attempt.wasSent = true
        asked(attempt, client.wire(), validUntil)
        return [attempt.owner, ttlOf(attempt), `${validUntil}`, ticket]
      },
      onAnswer: () => answered(attempt),
      read: (answer) => readTaken(attempt, ticket, stale, answer)
    })
  }

  const readTaken = (
    attempt: Attempt,
    ticket: string,
    stale: number,
    { end, reply, sentAt }: Answered
  ): Effect.Effect<Taken, LockBackendError> => {
    const time = typeof end === "number" || typeof end === "string" ? Number(end) : Number.NaN
    if (Number.isFinite(time)) ahead = time - micros(sentAt)
    if (typeof reply === "string") {
      return Effect.succeed({ _tag: "Granted", grant: grantOf(attempt, sentAt, BigInt(reply)) })
    }
    const [code, first, rank, holderMillis]: Array<unknown> = Array.isArray(reply) ? reply : [reply]
    switch (code) {
      case Code.granted:
        if (typeof first !== "string") return unexpected("acquire", reply)
        return Effect.succeed({ _tag: "Granted", grant: grantOf(attempt, sentAt, attempt.token ?? BigInt(first)) })
      case Code.waiting:
        attempt.token = undefined
        return Effect.succeed(
          first === undefined
            ? waiting
            : { _tag: "Waiting", ticket: String(first), rank: Number(rank), holderMillis: Number(holderMillis) }
        )
      case Code.void:
        return givenBack
      case Code.stale:
        return take(attempt, ticket, stale + 1)
      default:
        return unexpected("acquire", reply)
    }
  }

  const confirm: Verbs["confirm"] = (attempt) =>
    RedisCall.run(client, {
      operation: "renew",
      verb: confirming,
      keys: [isCluster ? fenceInSlot(attempt.key) : fence, attempt.key],
      limit: attempt.limit,
      args: () => [attempt.owner, ttlOf(attempt)],
      read: ({ reply, sentAt }) => {
        if (typeof reply === "string") {
          return Effect.succeedSome(grantOf(attempt, sentAt, attempt.token ?? BigInt(reply)))
        }
        return reply === 0 ? Effect.succeedNone : unexpected("renew", reply)
      }
    })

  const renew: Verbs["renew"] = (attempt) =>
    RedisCall.run(client, {
      operation: "renew",
      verb: renewing,
      keys: [attempt.key],
      limit: attempt.limit,
      args: () => [attempt.owner, ttlOf(attempt)],
      read: ({ reply, sentAt }) => {
        if (reply === 1) return Effect.succeedSome({ validFrom: sentAt, ttl: attempt.ttl })
        return reply === 0 ? Effect.succeedNone : unexpected("renew", reply)
      }
    })

  const giveBack: Verbs["giveBack"] = (attempt) => {
    attempt.isOver = true
    return RedisCall.run(client, {
      operation: "release",
      verb: releasing,
      keys: keysFor(attempt),
      limit: attempt.limit,
      args: () => [attempt.owner, markUntil(attempt, client.wire())],
      read: ({ reply }) => reply === 0 || reply === 1 ? Effect.succeed(reply === 1) : unexpected("release", reply)
    })
  }

  return { take, renew, confirm, giveBack }
}
