/**
 * Requests to hold a key, and what the server may still do for them.
 *
 * A message whose answer is not waited for any more may reach the server late: the connection was frozen, or a driver sent it
 * again. So a message that takes a key says until when it is valid, by the server's clock, and is refused afterwards; and
 * a request that is withdrawn before then leaves a void mark that lives as long. An ordinary release, before which every
 * message was answered, leaves nothing behind.
 */
import type { LockRequest } from "@dlock/core"

/** Messages that take a key, to one server. */
export interface Messages {
  /** How many were sent and not answered, or may be under way in another copy. */
  unanswered: number
  /** Until when one of these is valid, in µs of the server's clock. */
  validUntil: number
  /** Whether the server holds the key for us, or has us in its line, as far as it told. */
  isKept: boolean
  /** How many releases were sent of which it is unknown whether the server ran them exactly once. */
  unknownReleases: number
}

/** One request. Ten thousand of them may be held at a time, so what can be derived is not kept. */
export interface Attempt extends Messages {
  readonly request: LockRequest
  /** The lock itself, with what stands before it. */
  readonly key: string
  /** How long to wait for an answer, in milliseconds. */
  readonly limit: number
  /** Whether it was released: nothing is asked for any more. */
  isOver: boolean
  /** Its place among what is held; -1: it is not. */
  slot: number
  /** When the holder's channel was last stored, in milliseconds of the monotonic clock; 0: never. */
  watchedAt: number
}

export const make = (request: LockRequest, keyPrefix: string, longest: number): Attempt => ({
  request,
  key: keyPrefix + request.key,
  limit: Math.min(longest, request.ttl),
  unanswered: 0,
  validUntil: 0,
  isKept: false,
  unknownReleases: 0,
  isOver: false,
  slot: -1,
  watchedAt: 0
})

/** How long the grant lasts, as it is really asked for: in whole milliseconds. Core may lengthen it. */
export const ttlOf = ({ request }: Pick<Attempt, "request">): number => Math.max(1, Math.ceil(request.ttl))

/** How long to wait for the answer to a renewal: another one, over another connection, must come in time, too. */
export const renewalLimitOf = (attempt: Attempt): number => Math.min(attempt.limit, ttlOf(attempt) / 4)

/** A message is sent. */
export const asked = (messages: Messages, validUntil: number): void => {
  messages.unanswered++
  messages.validUntil = Math.max(messages.validUntil, validUntil)
}

/** Whether the server may have something of the request, now or later. */
export const mayBeKept = ({ isKept, unanswered }: Messages): boolean => isKept || unanswered > 0

/** Until when a void mark is needed, as the scripts take it. */
export const markUntil = ({ unanswered, validUntil }: Messages): string => unanswered === 0 ? "0" : `${validUntil}`
