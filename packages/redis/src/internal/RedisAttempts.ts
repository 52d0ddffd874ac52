/**
 * Attempts to hold a key, and what the server may still do for them.
 *
 * A request that nobody waits for any more may reach the server late: the connection was frozen, or somebody's driver
 * sent it again. So a request to take a key says until when it is valid, by the server's clock, and is refused
 * afterwards; and an attempt that is given back before then leaves a mark that lives as long. An ordinary release,
 * before which every request was answered, leaves nothing behind.
 */
import type { LockRequest } from "@dlock/core"
import * as Duration from "effect/Duration"
import { keysOf } from "./RedisKeys.ts"
import { fenceMillis } from "./RedisScripts.ts"

/** One attempt. */
export interface Attempt {
  readonly owner: string
  /** The lock itself, with what stands before it. */
  readonly key: string
  /** The number of KEYS, the KEYS, and the first ARGV of every script, each for its own set of KEYS. */
  readonly all: ReadonlyArray<string>
  readonly lockAndFence: ReadonlyArray<string>
  readonly lock: ReadonlyArray<string>
  /** How long the lease lives, as it is really asked for: in whole milliseconds. */
  readonly ttl: Duration.Duration
  /** How long to wait for an answer, in ns. */
  readonly limit: bigint
  /** Whether the server was ever asked for the key. */
  wasSent: boolean
  /** When its token was last given a full life, by `Clock.monotonicTimeNanos`. */
  fencedAt: bigint
  /** How many times it was asked and has not answered. */
  unanswered: number
  /** Until when one of these requests is valid, in µs of the server's clock. */
  validUntil: number
  /** Whether it was given back: nothing is asked for any more. */
  isOver: boolean
}

/** The attempts of a backend. */
export interface Attempts {
  /** An attempt that begins, or goes on. */
  readonly begin: (request: LockRequest) => Attempt
  /** What is known of an attempt, if anything. */
  readonly find: (request: LockRequest) => Attempt
  /** The server has nothing of it any more. */
  readonly end: (request: LockRequest) => void
  /** It is over, or has failed: whoever asked may come back to it, or not. */
  readonly leave: (request: LockRequest, attempt: Attempt) => void
}

export const make = (keyPrefix: string, commandTimeout: Duration.Duration): Attempts => {
  const live = new Map<LockRequest, Attempt>()
  // A weak map for all of them would cost the garbage collector more than everything else here together.
  const left = new WeakMap<LockRequest, Attempt>()

  const make = (request: LockRequest): Attempt => {
    const { fence, line, lock, voidPrefix, waiters } = keysOf(keyPrefix + request.key)
    const ttlMillis = Math.max(1, Math.ceil(Duration.toMillis(request.ttl)))
    const argv = [request.owner, `${ttlMillis}`, `${ttlMillis + fenceMillis}`]
    return {
      owner: request.owner,
      key: lock,
      all: ["5", lock, line, waiters, fence, voidPrefix + request.owner, ...argv],
      lockAndFence: ["2", lock, fence, ...argv],
      lock: ["1", lock, ...argv],
      ttl: Duration.millis(ttlMillis),
      limit: Duration.toNanosUnsafe(Duration.min(commandTimeout, request.ttl)),
      wasSent: false,
      fencedAt: 0n,
      unanswered: 0,
      validUntil: 0,
      isOver: false
    }
  }
  const find = (request: LockRequest): Attempt => live.get(request) ?? left.get(request) ?? make(request)

  return {
    begin: (request) => {
      const attempt = find(request)
      if (!attempt.isOver) live.set(request, attempt)
      return attempt
    },
    find,
    end: (request) => {
      live.delete(request)
      left.delete(request)
    },
    leave: (request, attempt) => {
      live.delete(request)
      left.set(request, attempt)
    }
  }
}
