/**
 * The verbs on one of N servers: what a claim asks of it, and its answer as a vote.
 */
import type { LockBackendError } from "@dlock/core"
import * as Exit from "effect/Exit"
import * as RedisAttempts from "./RedisAttempts.ts"
import * as RedisError from "./RedisError.ts"
import type { Call, Verb } from "./RedisQueue.ts"
import type { Script } from "./RedisScripts.ts"
import type { Asked, Claim } from "./RedlockAttempt.ts"
import { backendError, toError } from "./RedlockNode.ts"
import type { TakeVote } from "./RedlockQuorum.ts"
import * as RedlockScripts from "./RedlockScripts.ts"

/** What is asked for: from which token on, and for how many milliseconds, as the scripts take it. */
export interface Wish {
  readonly least: string
  readonly ttl: string
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

const verb = (script: Script, isFirst: boolean): Verb => ({ script, keys: [], args: [], joins: true, isFirst })

const taking = verb(RedlockScripts.take, false)
const holding = verb(RedlockScripts.hold, false)
const releasing = verb(RedlockScripts.release, true)

const isToken = (reply: unknown): reply is string => typeof reply === "string" && /^\d+$/.test(reply)

/** Asks for the key. */
export const take = (
  claim: Claim,
  asked: Asked,
  wish: Wish,
  onFailure: OnFailure,
  onVote: (vote: TakeVote) => void,
  stale = 0
): void => {
  const { node } = asked
  const call: Call = {
    verb: taking,
    keys: asked.keys,
    isWanted: () => !claim.isOver,
    args: (sentAt) => {
      const ahead = node.clockAhead ?? wish.clockAhead
      const validUntil = Math.ceil(micros(sentAt) + claim.limit * 1000 + ahead + slack)
      asked.mayHold = true
      RedisAttempts.asked(asked, node.client.wire(), validUntil)
      return [claim.value, wish.ttl, claim.lives[1], `${validUntil}`, wish.least]
    },
    onAnswer: () => RedisAttempts.answered(asked)
  }
  const away = (error: LockBackendError) => {
    onFailure(error)
    onVote({ _tag: "Away" })
  }
  const protocol = (detail: string) => away(backendError("acquire", "Protocol", `${node.label}: ${detail}`))
  node.ask(call, claim.limit, (outcome) => {
    if (outcome._tag !== "Answered") {
      if (outcome._tag === "Failed" && RedisError.isAnswer(outcome.cause)) settleAsNotOurs(asked)
      else if (asked.mayHold) asked.isDoubtful = true
      return away(toError("acquire", node.label, outcome))
    }
    const { end, reply, sentAt } = outcome
    if (isToken(reply)) return onVote({ _tag: "Ours", token: BigInt(reply) })
    settleAsNotOurs(asked)
    const [code, millis, holder]: Array<unknown> = Array.isArray(reply) ? reply : [reply]
    switch (code) {
      case RedlockScripts.Code.held:
        return onVote({ _tag: "Held", holder: String(holder), millis: Number(millis) })
      case RedlockScripts.Code.void:
        return protocol("this attempt was given back before")
      case RedlockScripts.Code.stale:
        if (typeof end === "number") node.clockAhead = end - micros(sentAt)
        return stale < maxStale
          ? take(claim, asked, wish, onFailure, onVote, stale + 1)
          : protocol("the server's clock jumps")
      default:
        return protocol(`unexpected answer ${JSON.stringify(reply)}`)
    }
  })
}

/** Prolongs the key if it is ours, and raises its token to ours. */
export const hold = (
  claim: Claim,
  asked: Asked,
  token: bigint,
  onFailure: OnFailure,
  onVote: (vote: HoldVote) => void
): void => {
  const { keys: [lock, fence], node } = asked
  const call: Call = {
    verb: holding,
    keys: [lock, fence],
    isWanted: () => !claim.isOver,
    args: () => [claim.value, ...claim.lives, `${token}`]
  }
  node.ask(call, claim.limit, (outcome) => {
    if (outcome._tag !== "Answered") {
      if (claim.isOver) return onVote("other")
      onFailure(toError("renew", node.label, outcome))
      return onVote("away")
    }
    switch (outcome.reply) {
      case RedlockScripts.Held.ours:
        return onVote("ours")
      case RedlockScripts.Held.absent:
        return onVote("absent")
      default:
        return onVote("other")
    }
  })
}

/** Gives the key back, and voids requests for it that are still under way; answers whether it was ours. */
export const release = (
  claim: Claim,
  asked: Asked,
  onExit: (exit: Exit.Exit<boolean, LockBackendError>) => void
): void => {
  const { keys: [lock, , voidMark], node } = asked
  const call: Call = {
    verb: releasing,
    keys: [lock, voidMark],
    args: () => [claim.value, RedisAttempts.markUntil(asked, node.client.wire()), asked.channel]
  }
  node.ask(call, claim.limit, (outcome) => {
    if (outcome._tag !== "Answered") return onExit(Exit.fail(toError("release", node.label, outcome)))
    asked.mayHold = false
    onExit(Exit.succeed(outcome.reply === 1))
  })
}
