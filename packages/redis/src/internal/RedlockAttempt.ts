/**
 * Attempts to hold a key, and what each server may still do for them.
 *
 * An attempt asks for a majority in rounds. Each round has a value of its own under the key, so that whatever arrives
 * late of one round (a request, a give-back) means nothing to the next. The first round's value is the owner itself.
 */
import type { LockRequest } from "@dlock/core"
import * as Duration from "effect/Duration"
import type * as Latch from "effect/Latch"
import type { Unanswered } from "./RedisAttempts.ts"
import { baseOf } from "./RedisKeys.ts"
import type { RedlockNode } from "./RedlockNode.ts"
import { fenceMillis } from "./RedlockScripts.ts"

/** What one server was asked in one round. */
export interface Asked extends Unanswered {
  readonly node: RedlockNode
  /** The KEYS of `take`. */
  readonly keys: readonly [lock: string, fence: string, voidMark: string]
  readonly channel: string
  /** Whether it has us as its holder, or may have: an answer is missing. */
  mayHold: boolean
  /** Whether an answer came too late to be heard, or never. */
  isDoubtful: boolean
  /** Whether it is asked again and again to take the give-back. */
  isReminded: boolean
}

/** One round. */
export interface Claim {
  /** What stands under the key. */
  readonly value: string
  readonly nodes: ReadonlyArray<Asked>
  /** How long the lease lives, as it is really asked for. */
  readonly ttlMillis: number
  /** How long it and its token live, as the scripts take it. */
  readonly lives: readonly [ttl: string, fence: string]
  /** How long to wait for the answer of one server, in ms. */
  readonly limit: number
  /** The token, once this round has a majority. */
  token: bigint | undefined
  /** Whether it was given back: nothing is asked for any more. */
  isOver: boolean
}

/** One attempt. */
export interface Attempt {
  readonly request: LockRequest
  rounds: number
  claim: Claim | undefined
  /** Whether it was given back. */
  isOver: boolean
  /** Opens when the call that works on it is through; a second call of the same attempt waits for that. */
  busy: Latch.Latch | undefined
  /** Called when it is given back. */
  onOver: (() => void) | undefined
}

/** The attempts of a backend. Whoever asked may come back to one, or not. */
export interface Attempts {
  /** An attempt that begins, or goes on, or is over. */
  readonly of: (request: LockRequest) => Attempt
  /** The servers have nothing of it any more that anybody could ask for. */
  readonly end: (request: LockRequest) => void
}

export const makeAttempts = (): Attempts => {
  const attempts = new WeakMap<LockRequest, Attempt>()
  return {
    of: (request) => {
      const known = attempts.get(request)
      if (known !== undefined) return known
      const attempt: Attempt = {
        request,
        rounds: 0,
        claim: undefined,
        isOver: false,
        busy: undefined,
        onOver: undefined
      }
      attempts.set(request, attempt)
      return attempt
    },
    end: (request) => {
      attempts.delete(request)
    }
  }
}

/** Where those who wait for a key hear of its release, on the server that has it under this name. */
export const channelOf = (lock: string): string => `dlock-free/${lock}`

/** The names of a key on one server. */
export const lockOn = (node: RedlockNode, key: string): string => node.keyPrefix + key

/** The next round of an attempt. */
export const nextClaim = (
  nodes: ReadonlyArray<RedlockNode>,
  attempt: Attempt,
  nodeTimeout: (ttl: Duration.Duration) => Duration.Duration
): Claim => {
  const { key, owner, ttl } = attempt.request
  const round = attempt.rounds++
  const value = round === 0 ? owner : `${owner}~${round}`
  const ttlMillis = Math.max(1, Math.ceil(Duration.toMillis(ttl)))
  const claim: Claim = {
    value,
    nodes: nodes.map((node) => {
      const lock = lockOn(node, key)
      const base = baseOf(lock)
      return {
        node,
        keys: [lock, `${base}fence`, `${base}void/${value}`],
        channel: channelOf(lock),
        mayHold: false,
        isDoubtful: false,
        unanswered: 0,
        wire: undefined,
        validUntil: 0,
        isReminded: false
      }
    }),
    ttlMillis,
    lives: [`${ttlMillis}`, `${ttlMillis + fenceMillis}`],
    limit: Duration.toMillis(nodeTimeout(ttl)),
    token: undefined,
    isOver: false
  }
  attempt.claim = claim
  return claim
}
