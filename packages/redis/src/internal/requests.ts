/**
 * The scripts as typed functions, each for one request.
 */
import type { Grant, Inspection, LockBackendError, Released, Tokens, Validity } from "@dlock/core"
import { Errors } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as attempts from "./attempts.ts"
import type { Attempt } from "./attempts.ts"
import * as calls from "./calls.ts"
import type { Connection } from "./client.ts"
import type { Answered } from "./commands.ts"
import { fence, fenceInSlot, namesOf } from "./names.ts"
import type { Scripts } from "./scripts.ts"
import { noTicket, slackMicros } from "./scripts.ts"

export const backendName = "redis"

/** What came of asking for a key. */
export type Taken =
  | { readonly _tag: "Granted", readonly grant: Grant }
  | { readonly _tag: "Held" }
  | {
    readonly _tag: "Waiting"
    readonly ticket: string
    /** What is left of the holder's grant; negative when there is no limit, or others are before us in line. */
    readonly holderMillis: number
  }

/** What the requests need to know. */
export interface Requests {
  readonly connection: Connection
  readonly scripts: Scripts
  /** Where messages for this process arrive. */
  readonly channel: string
  /** The longest wait for an answer that belongs to no request, in milliseconds. */
  readonly limit: number
  /** The server's clock minus our monotonic one, in µs. */
  clockAhead: number
}

/** How often a request may meet a server whose clock is not what we took it for. */
const maxStale = 3

const errors = Errors.make(backendName)

const protocol = (operation: string, detail: string) => Effect.fail(errors.protocol(operation, { detail }))

const unexpected = (operation: string, reply: unknown) =>
  protocol(operation, `unexpected answer ${JSON.stringify(reply)}`)

const over = protocol("acquire", "this request was released before")

const namesFor = (key: string): ReadonlyArray<string> => {
  const { holder, line, lock, void: mark, waiters } = namesOf(key)
  return [lock, line, waiters, mark, holder]
}

const fenceOf = ({ connection }: Requests, key: string): string => connection.isCluster ? fenceInSlot(key) : fence

/** `granted 1700000000000000 63`, and the like. */
const tokensOf = (reply: string): Tokens | undefined => {
  const match = /^granted (\d+) (\d+)$/.exec(reply)
  return match?.[1] === undefined ? undefined : { first: BigInt(match[1]), spare: Number(match[2]) }
}

const grantOf = (ttl: number, sentAt: number, tokens: Tokens): Grant => ({ validFrom: sentAt, ttl, tokens })

/** How many tokens a request wishes for. */
const wished = (spare: number): string => `${Math.min(Math.max(0, Math.trunc(spare)), mostSpare) + 1}`

/** More would reach back into the time before this request. */
const mostSpare = 1000

/** Answers after which the server has nothing of the request. A malformed answer tells nothing. */
const takesNothing = /^(held( .*)?|void|stale \d+)$/

/** Takes the key if it is free; with a ticket, or '' to get one, stands in line otherwise. */
export const take = (
  requests: Requests,
  attempt: Attempt,
  ticket: string = noTicket,
  stale = 0
): Effect.Effect<Taken, LockBackendError> => {
  if (attempt.isOver) return over
  if (stale === maxStale) return protocol("acquire", "the server's clock jumps")
  const channel = ticket === noTicket ? "" : requests.channel
  return calls.run(requests.connection, {
    operation: "acquire",
    script: requests.scripts.acquire,
    keys: [fenceOf(requests, attempt.key), ...namesFor(attempt.key)],
    limit: attempt.limit,
    isWanted: () => !attempt.isOver,
    args: (sentAt) => {
      const validUntil = Math.ceil((sentAt + attempt.limit) * 1000 + requests.clockAhead + slackMicros)
      attempts.asked(attempt, validUntil)
      const { owner, spare } = attempt.request
      return [channel, owner, `${attempts.ttlOf(attempt)}`, `${validUntil}`, ticket, wished(spare)]
    },
    onAnswer: (outcome) => {
      attempt.unanswered--
      if (outcome._tag === "Answered" && !takesNothing.test(String(outcome.reply))) attempt.isKept = true
    },
    read: (answer) => readTaken(requests, attempt, ticket, stale, answer)
  })
}

/** Labels may have blanks. */
const holderIn = /^(?:held|waiting \S+ \S+) (.+)$/

const readTaken = (
  requests: Requests,
  attempt: Attempt,
  ticket: string,
  stale: number,
  { reply, sentAt }: Answered
): Effect.Effect<Taken, LockBackendError> => {
  const [word, first = "", second = ""] = String(reply).split(" ")
  const tokens = tokensOf(String(reply))
  if (tokens !== undefined) {
    return Effect.succeed({ _tag: "Granted", grant: grantOf(attempts.ttlOf(attempt), sentAt, tokens) })
  }
  const holder = holderIn.exec(String(reply))?.[1]
  if (holder !== undefined) attempt.request.onHeld?.(holder)
  switch (word) {
    case "held":
      return Effect.succeed({ _tag: "Held" })
    case "waiting":
      return Effect.succeed({ _tag: "Waiting", ticket: first, holderMillis: Number(second) })
    case "void":
      return over
    case "stale":
      requests.clockAhead = Number(first) - sentAt * 1000
      return take(requests, attempt, ticket, stale + 1)
    default:
      return unexpected("acquire", reply)
  }
}

/** Prolongs the grant; `none` if it is not ours any more. */
export const renew = (
  { connection, scripts }: Requests,
  attempt: Attempt,
  limit = attempts.renewalLimitOf(attempt)
): Effect.Effect<Option.Option<Validity>, LockBackendError> => {
  const ttl = attempts.ttlOf(attempt)
  return calls.run(connection, {
    operation: "renew",
    script: scripts.renew,
    keys: [attempt.key],
    limit,
    args: () => [attempt.request.owner, `${ttl}`],
    read: ({ reply, sentAt }) => {
      if (reply === "ours") return Effect.succeedSome({ validFrom: sentAt, ttl })
      return reply === "gone" ? Effect.succeedNone : unexpected("renew", reply)
    }
  })
}

/** Prolongs the grant, and brings new tokens. */
export const confirm = (
  requests: Requests,
  attempt: Attempt,
  spare: number
): Effect.Effect<Option.Option<Grant>, LockBackendError> => {
  const ttl = attempts.ttlOf(attempt)
  return calls.run(requests.connection, {
    operation: "renew",
    script: requests.scripts.confirm,
    keys: [fenceOf(requests, attempt.key), attempt.key],
    limit: attempts.renewalLimitOf(attempt),
    args: () => [attempt.request.owner, `${ttl}`, wished(spare)],
    read: ({ reply, sentAt }) => {
      const tokens = tokensOf(String(reply))
      if (tokens !== undefined) return Effect.succeedSome(grantOf(ttl, sentAt, tokens))
      return reply === "gone" ? Effect.succeedNone : unexpected("renew", reply)
    }
  })
}

/** Releases the key, leaves the line, and voids what is still on its way. */
export const release = (
  { connection, scripts }: Requests,
  attempt: Attempt
): Effect.Effect<Released, LockBackendError> => {
  attempt.isOver = true
  return calls.run(connection, {
    operation: "release",
    script: scripts.release,
    isFirst: true,
    keys: namesFor(attempt.key),
    limit: attempt.limit,
    args: () => {
      attempt.unknownReleases++
      return [attempt.request.owner, attempts.markUntil(attempt)]
    },
    onAnswer: () => {
      attempt.unknownReleases--
    },
    read: ({ reply }) => {
      if (reply === "released") return Effect.succeed("released")
      // A copy of the release may have been the one that freed the key.
      if (reply === "gone") return Effect.succeed(attempt.unknownReleases === 0 ? "gone" : "unknown")
      return unexpected("release", reply)
    }
  })
}

/** A release that a server may have forgotten in a fail-over. */
export const releaseAgain = (
  { connection, limit, scripts }: Requests,
  key: string,
  owner: string
): Effect.Effect<void, LockBackendError> =>
  calls.run(connection, {
    operation: "release",
    script: scripts.release,
    isFirst: true,
    keys: namesFor(key),
    limit,
    args: () => [owner, "0"],
    read: () => Effect.void
  })

/** For how many ttls the holder's channel is stored; half way it is stored again. */
export const watchedTtls = 40

/** Lets those that join the line tell us; answers whether another is in line already, or the grant is not ours any more. */
export const watch = (
  { channel, connection, scripts }: Requests,
  attempt: Attempt
): Effect.Effect<"wanted" | "alone" | "gone", LockBackendError> => {
  const { holder, line, lock } = namesOf(attempt.key)
  return calls.run(connection, {
    operation: "watch",
    script: scripts.watch,
    keys: [lock, line, holder],
    limit: attempt.limit,
    isWanted: () => !attempt.isOver,
    args: () => [channel, attempt.request.owner, `${attempts.ttlOf(attempt) * watchedTtls}`],
    read: ({ reply }) =>
      reply === "wanted" || reply === "alone" || reply === "gone"
        ? Effect.succeed(reply)
        : unexpected("watch", reply)
  })
}

/** The holder of a key, and its waiters. */
export const inspect = (
  { connection, limit, scripts }: Requests,
  key: string
): Effect.Effect<Inspection, LockBackendError> => {
  const { line, lock, waiters } = namesOf(key)
  return calls.run(connection, {
    operation: "inspect",
    script: scripts.inspect,
    keys: [lock, line, waiters],
    limit,
    args: () => [],
    read: ({ reply }) => {
      const [state, owner, millis, ...waiting]: ReadonlyArray<string> = Array.isArray(reply) ? reply.map(String) : []
      if (state !== "held" && state !== "free") return unexpected("inspect", reply)
      const remaining = Number(millis)
      const holder = { owner: owner ?? "", ...(remaining >= 0 && { remaining }) }
      return Effect.succeed({ holder: state === "held" ? Option.some(holder) : Option.none(), waiting })
    }
  })
}

/** Ends the hold of this owner; `false` if it does not hold the key. */
export const revoke = (
  { connection, limit, scripts }: Requests,
  key: string,
  owner: string
): Effect.Effect<boolean, LockBackendError> =>
  calls.run(connection, {
    operation: "revoke",
    script: scripts.revoke,
    keys: namesFor(key),
    limit,
    args: () => [owner],
    read: ({ reply }) =>
      reply === "revoked" || reply === "gone" ? Effect.succeed(reply === "revoked") : unexpected("revoke", reply)
  })
