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

/** Requests to take a key. */
export interface Unanswered {
  /** How many times the server was asked and has not answered. */
  unanswered: number
  /** The way that the first of these requests went. */
  wire: object | undefined
  /** Until when one of these requests is valid, in µs of the server's clock. */
  validUntil: number
}

/** One attempt. Ten thousand of them may be held at a time, so that what can be derived is not kept. */
export interface Attempt extends Unanswered {
  readonly owner: string
  /** The lock itself, with what stands before it. */
  readonly key: string
  /** How long the lease lives, as it is really asked for: in whole milliseconds. */
  readonly ttl: Duration.Duration
  /** How long to wait for an answer, in ms. */
  readonly limit: number
  /** Whether the server was ever asked for the key. */
  wasSent: boolean
  /** The token, once it is known, until the key is known to be somebody else's. */
  token: bigint | undefined
  /** Whether it was given back: nothing is asked for any more. */
  isOver: boolean
}

/** A request is written. */
export const asked = (attempt: Unanswered, wire: object | undefined, validUntil: number): void => {
  if (attempt.unanswered++ === 0) attempt.wire = wire
  attempt.validUntil = Math.max(attempt.validUntil, validUntil)
}

/** A request was answered. */
export const answered = (attempt: Unanswered): void => {
  if (--attempt.unanswered === 0) attempt.wire = undefined
}

/**
 * Until when a mark is needed for requests that were not answered, as the scripts take it: none for those that go the same
 * way as the give-back, because the server reads them first.
 */
export const markUntil = ({ unanswered, validUntil, wire }: Unanswered, giveBackWire: object | undefined): string =>
  unanswered === 0 || (wire !== undefined && wire === giveBackWire) ? "0" : `${validUntil}`

/** The attempts of a backend. */
export interface Attempts {
  /** An attempt that begins, or goes on, or is over. */
  readonly of: (request: LockRequest) => Attempt
  /** The server has nothing of it any more. */
  readonly end: (request: LockRequest) => void
}

export const make = (keyPrefix: string, commandTimeout: Duration.Duration): Attempts => {
  // Whoever asked may come back to it, or not. A `Map` that much goes through leaves a chain of its old tables behind.
  const attempts = new WeakMap<LockRequest, Attempt>()
  const longest = Duration.toMillis(commandTimeout)

  const make = (request: LockRequest): Attempt => {
    const asked = Duration.toMillis(request.ttl)
    const ttl = Math.max(1, Math.ceil(asked))
    return {
      owner: request.owner,
      key: keyPrefix + request.key,
      ttl: ttl === asked ? request.ttl : Duration.millis(ttl),
      limit: Math.min(longest, asked),
      wasSent: false,
      token: undefined,
      unanswered: 0,
      wire: undefined,
      validUntil: 0,
      isOver: false
    }
  }
  return {
    of: (request) => {
      const known = attempts.get(request)
      if (known !== undefined) return known
      const attempt = make(request)
      attempts.set(request, attempt)
      return attempt
    },
    end: (request) => {
      attempts.delete(request)
    }
  }
}
