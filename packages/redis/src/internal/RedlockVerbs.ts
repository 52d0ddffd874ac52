/**
 * The verbs on one of N servers: what a claim asks of it, and its answer as a vote.
 */
import type { LockBackendError } from "@dlock/core"
import * as Effect from "effect/Effect"
import * as RedisError from "./RedisError.ts"
import * as RedisServer from "./RedisServer.ts"
import type { Asked, Claim } from "./RedlockAttempt.ts"
import type { RedlockNode } from "./RedlockNode.ts"
import { backendError, toError } from "./RedlockNode.ts"
import type { TakeVote } from "./RedlockQuorum.ts"
import * as RedlockScripts from "./RedlockScripts.ts"

/** A server, and what this claim has asked of it. */
export interface Place {
  readonly claim: Claim
  readonly node: RedlockNode
  readonly asked: Asked
}

/** What is asked for: from which token on, and for how long. */
export interface Wish {
  readonly least: bigint
  readonly ttlMillis: number
  /** The server's clock minus our monotonic one in µs, as long as it is not known. */
  readonly clockAhead: number
}

/** What a server says of a key that is thought to be ours. */
export type HoldVote = "ours" | "absent" | "other" | "away"

/** Told why a server is away. */
export type OnFailure = (error: LockBackendError) => void

/** By how much longer a request is valid than somebody waits for it, in µs. */
const slack = 1_000_000

/** How often a request may meet a server whose clock is not what we took it for. */
const maxStale = 3

export const micros = (nanos: bigint): number => Number(nanos) / 1000

const settleAsNotOurs = (asked: Asked): void => {
  if (asked.unanswered === 0 && !asked.isDoubtful) asked.mayHold = false
}

/** Asks for the key. */
export const take = (place: Place, wish: Wish, onFailure: OnFailure, stale = 0): Effect.Effect<TakeVote> => {
  const { asked, claim, node } = place
  const answer = node.ask({
    script: RedlockScripts.take,
    keys: asked.keys,
    limit: claim.limit,
    isWanted: () => !claim.isOver,
    args: (sentAt) => {
      const validUntil = Math.ceil(micros(sentAt + claim.limit) + (node.clockAhead ?? wish.clockAhead) + slack)
      asked.mayHold = true
      asked.unanswered++
      asked.validUntil = Math.max(asked.validUntil, validUntil)
      return [claim.value, `${wish.ttlMillis}`, claim.fenceMillis, `${validUntil}`, `${wish.least}`]
    },
    onAnswer: () => {
      asked.unanswered--
    }
  })
  const away = (error: LockBackendError): Effect.Effect<TakeVote> => {
    onFailure(error)
    return Effect.succeed({ _tag: "Away" })
  }
  const protocol = (detail: string) => away(backendError("acquire", "Protocol", `${node.label}: ${detail}`))
  return Effect.matchEffect(answer, {
    onFailure: (failure) => {
      if (failure._tag === "Failed" && RedisError.isAnswer(failure.cause)) settleAsNotOurs(asked)
      else if (asked.mayHold) asked.isDoubtful = true
      return away(toError("acquire", node.label, failure))
    },
    onSuccess: ({ reply, sentAt }) => {
      if (typeof reply === "string") return Effect.succeed<TakeVote>({ _tag: "Ours", token: BigInt(reply) })
      settleAsNotOurs(asked)
      const [code, first, holder]: Array<unknown> = Array.isArray(reply) ? reply : []
      switch (code) {
        case RedlockScripts.Code.held:
          return Effect.succeed<TakeVote>({ _tag: "Held", holder: String(holder), millis: Number(first) })
        case RedlockScripts.Code.void:
          return protocol("this attempt was given back before")
        case RedlockScripts.Code.stale:
          node.clockAhead = RedisServer.clockAhead(first, sentAt) ?? node.clockAhead
          return stale < maxStale ? take(place, wish, onFailure, stale + 1) : protocol("the server's clock jumps")
        default:
          return protocol(`unexpected answer ${JSON.stringify(reply)}`)
      }
    }
  })
}

/** Prolongs the key if it is ours, and raises its token to ours. */
export const hold = ({ asked, claim, node }: Place, token: bigint, onFailure: OnFailure): Effect.Effect<HoldVote> => {
  const [lock, fence] = asked.keys
  const answer = node.ask({
    script: RedlockScripts.hold,
    keys: [lock, fence],
    limit: claim.limit,
    isWanted: () => !claim.isOver,
    args: () => [claim.value, `${claim.ttlMillis}`, claim.fenceMillis, `${token}`]
  })
  return Effect.match(answer, {
    onFailure: (failure) => {
      onFailure(toError("renew", node.label, failure))
      return "away"
    },
    onSuccess: ({ reply }) => {
      switch (reply) {
        case RedlockScripts.Held.ours:
          return "ours"
        case RedlockScripts.Held.absent:
          return "absent"
        default:
          return "other"
      }
    }
  })
}

/** Gives the key back, and voids requests for it that are still under way; answers whether it was ours. */
export const release = ({ asked, claim, node }: Place): Effect.Effect<boolean, LockBackendError> => {
  const [lock, , voidMark] = asked.keys
  const answer = node.ask({
    script: RedlockScripts.release,
    keys: [lock, voidMark],
    limit: claim.limit,
    args: () => [claim.value, asked.unanswered === 0 ? "0" : `${asked.validUntil}`, asked.channel]
  })
  return Effect.matchEffect(answer, {
    onFailure: (failure) => Effect.fail(toError("release", node.label, failure)),
    onSuccess: ({ reply }) => {
      asked.mayHold = false
      return Effect.succeed(reply === 1)
    }
  })
}
