/**
 * Requests to hold a key, and what each server may still do for them.
 *
 * A request asks for a majority in rounds. Each round has a value of its own under the key, so that whatever arrives late
 * of one round (a message, a release) means nothing to the next. The first round's value is the owner itself.
 */
import type { LockRequest } from "@dlock/core"
import { type Messages, ttlOf } from "../attempts.ts"
import { baseOf } from "../names.ts"
import type { RedlockNode } from "./node.ts"
import { fenceMillis } from "./scripts.ts"

/** What one server was asked in one round. */
export interface Asked extends Messages {
  readonly node: RedlockNode
  /** The KEYS of `take`. */
  readonly keys: readonly [lock: string, fence: string, voidMark: string]
  readonly channel: string
  /** Whether it is asked again and again to take the release. */
  isReminded: boolean
}

/** One round. */
export interface Claim {
  /** What stands under the key. */
  readonly value: string
  readonly nodes: ReadonlyArray<Asked>
  /** How long the grant lasts, as it is really asked for, in milliseconds. */
  ttl: number
  /** How long to wait for the answer of one server, in milliseconds. */
  readonly limit: number
  /** The last token of this round, once it has a majority. */
  token: bigint | undefined
  /** Whether it was released: nothing is asked for any more. */
  isOver: boolean
}

/** One request. */
export interface Attempt {
  readonly request: LockRequest
  rounds: number
  claim: Claim | undefined
  /** Whether it was released. */
  isOver: boolean
}

export const make = (request: LockRequest): Attempt => ({ request, rounds: 0, claim: undefined, isOver: false })

/** The channel on which waiters hear of a release, on the server that has it under this name. */
export const channelOf = (lock: string): string => `dlock-free/${lock}`

/** The keys of a lock on one server, without a void mark. */
export const keysOn = ({ keyPrefix }: RedlockNode, key: string): readonly [lock: string, fence: string] => {
  const lock = keyPrefix + key
  return [lock, `${baseOf(lock)}fence`]
}

/** What an owner's rounds are stored as. */
export const isValueOf = (value: string, owner: string): boolean =>
  value === owner || (value.startsWith(`${owner}~`) && /^\d+$/.test(value.slice(owner.length + 1)))

/** The owner of a value. */
export const ownerOf = (value: string): string => value.replace(/~\d+$/, "")

/** A round of its own for one value. */
export const claimOf = (
  nodes: ReadonlyArray<RedlockNode>,
  key: string,
  value: string,
  { limit, ttl }: Pick<Claim, "limit" | "ttl">
): Claim => ({
  value,
  nodes: nodes.map((node) => {
    const [lock, fence] = keysOn(node, key)
    return {
      node,
      keys: [lock, fence, `${baseOf(lock)}void/${value}`],
      channel: channelOf(lock),
      unanswered: 0,
      validUntil: 0,
      isKept: false,
      unknownReleases: 0,
      isReminded: false
    }
  }),
  ttl,
  limit,
  token: undefined,
  isOver: false
})

/** How long the token of a grant lives. */
export const fenceLife = ({ ttl }: Claim): number => ttl + fenceMillis

/** The next round of a request. */
export const nextClaim = (
  nodes: ReadonlyArray<RedlockNode>,
  attempt: Attempt,
  nodeTimeout: (ttl: number) => number
): Claim => {
  const { key, owner, ttl } = attempt.request
  const round = attempt.rounds++
  const value = round === 0 ? owner : `${owner}~${round}`
  attempt.claim = claimOf(nodes, key, value, { ttl: ttlOf(attempt), limit: nodeTimeout(ttl) })
  return attempt.claim
}
