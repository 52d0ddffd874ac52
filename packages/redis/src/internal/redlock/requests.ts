/**
 * The scripts on one of N servers: what a claim asks of it, and its answer as a vote.
 */
import type { LockBackendError, Released } from "@dlock/core"
import * as Exit from "effect/Exit"
import * as attempts from "../attempts.ts"
import type { Call } from "../commands.ts"
import { slackMicros } from "../scripts.ts"
import { type Asked, type Claim, fenceLife } from "./attempts.ts"
import { ask, errors, toError } from "./node.ts"
import type { TakeVote } from "./quorum.ts"
import * as scripts from "./scripts.ts"

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

/** How often a request may meet a server whose clock is not what we took it for. */
const maxStale = 3

/** Answers after which the server has nothing of the request. A malformed answer tells nothing. */
const takesNothing = /^(held -?\d+ |void$|stale \d+$)/

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
    script: scripts.take,
    keys: asked.keys,
    isWanted: () => !claim.isOver,
    args: (sentAt) => {
      const ahead = node.clockAhead ?? wish.clockAhead
      const validUntil = Math.ceil((sentAt + claim.limit) * 1000 + ahead + slackMicros)
      attempts.asked(asked, validUntil)
      return [claim.value, wish.ttl, `${fenceLife(claim)}`, `${validUntil}`, wish.least]
    },
    onAnswer: (outcome) => {
      asked.unanswered--
      if (outcome._tag === "Answered" && !takesNothing.test(String(outcome.reply))) asked.isKept = true
    }
  }
  const away = (error: LockBackendError) => {
    onFailure(error)
    onVote({ _tag: "Away" })
  }
  const protocol = (detail: string) => away(errors.protocol("acquire", { at: node.label, detail }))
  ask(node, call, claim.limit, (outcome) => {
    if (outcome._tag !== "Answered") return away(toError(node, "acquire", outcome))
    const { reply, sentAt } = outcome
    const [word, first = "", ...rest] = String(reply).split(" ")
    switch (word) {
      case "granted":
        return /^\d+$/.test(first) && /^\d+$/.test(rest[0] ?? "")
          ? onVote({ _tag: "Ours", token: BigInt(first), last: BigInt(rest[0] ?? 0) })
          : protocol(`unexpected answer ${JSON.stringify(reply)}`)
      case "held":
        return onVote({ _tag: "Held", holder: rest.join(" "), millis: Number(first) })
      case "void":
        return protocol("this request was released before")
      case "stale":
        node.clockAhead = Number(first) - sentAt * 1000
        return stale < maxStale
          ? take(claim, asked, wish, onFailure, onVote, stale + 1)
          : protocol("the server's clock jumps")
      default:
        return protocol(`unexpected answer ${JSON.stringify(reply)}`)
    }
  })
}

/** Prolongs the key if it is ours, and raises its token to this one. */
export const hold = (
  claim: Claim,
  asked: Asked,
  token: bigint,
  onFailure: OnFailure,
  onVote: (vote: HoldVote) => void
): void => {
  const { keys: [lock, fence], node } = asked
  const call: Call = {
    script: scripts.hold,
    keys: [lock, fence],
    isWanted: () => !claim.isOver,
    args: () => [claim.value, `${claim.ttl}`, `${fenceLife(claim)}`, `${token}`]
  }
  ask(node, call, claim.limit, (outcome) => {
    if (outcome._tag !== "Answered") {
      if (claim.isOver) return onVote("other")
      onFailure(toError(node, "renew", outcome))
      return onVote("away")
    }
    const { reply } = outcome
    onVote(reply === "ours" || reply === "absent" ? reply : "other")
  })
}

/** Releases the key, and voids requests for it that are still under way. */
export const release = (
  claim: Claim,
  asked: Asked,
  onExit: (exit: Exit.Exit<Released, LockBackendError>) => void
): void => {
  const { keys: [lock, , voidMark], node } = asked
  const call: Call = {
    script: scripts.release,
    isFirst: true,
    keys: [lock, voidMark],
    args: () => {
      asked.unknownReleases++
      return [claim.value, attempts.markUntil(asked), asked.channel]
    },
    onAnswer: () => {
      asked.unknownReleases--
    }
  }
  ask(node, call, claim.limit, (outcome) => {
    if (outcome._tag !== "Answered") return onExit(Exit.fail(toError(node, "release", outcome)))
    asked.isKept = false
    // A copy of the release may have been the one that freed the key.
    const gone = asked.unknownReleases === 0 ? "gone" : "unknown"
    onExit(Exit.succeed(outcome.reply === "released" ? "released" : gone))
  })
}
