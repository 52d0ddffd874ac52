/**
 * Calls of scripts. What is called in one turn of the event loop is written at once, and calls of a script that takes
 * many locks are one command.
 */
import type { Timers } from "@dlock/core/backend"
import type { Failure } from "./errors.ts"
import { isAnswer, isNoScript } from "./errors.ts"
import type { Script } from "./scripts.ts"

/** The call of a script for one lock. Every script may be sent twice. */
export interface Call {
  readonly script: Script
  readonly keys: ReadonlyArray<string>
  /** Called when it is written; `sentAt` is the monotonic time in milliseconds. */
  readonly args: (sentAt: number) => ReadonlyArray<string>
  /** Whether it goes out before the other calls of its turn: a key is released before the next asks for it. */
  readonly isFirst?: boolean | undefined
  /** Called when the server has answered, or nothing was sent, and nothing is under way; also after `abandon`. */
  readonly onAnswer?: ((outcome: Outcome) => void) | undefined
  /** Whether it is still to be sent. Default: yes. */
  readonly isWanted?: (() => boolean) | undefined
}

/** What the server answered for one lock. */
export interface Answered {
  readonly _tag: "Answered"
  readonly reply: unknown
  /** The monotonic time in milliseconds just before the call was written. */
  readonly sentAt: number
}

export type Outcome = Answered | Failure

/**
 * Writes one command, or fails at once. `isOnly`: the driver wrote it once; otherwise another copy may be under way when
 * one is answered.
 */
export type Post = (
  command: string,
  args: Array<string>,
  onReply: (failure: Failure | undefined, reply: unknown, isOnly: boolean) => void
) => void

/** Where commands go. */
export interface Way {
  /** In a cluster a command has keys of one slot only, so every call is a command of its own. */
  readonly isCluster: boolean
  readonly post: Post
  /** What is written meanwhile goes out at once. */
  readonly together: (write: () => void) => void
  readonly timers: Timers.Timers
  /** Called when an answer is late. */
  readonly onLate: (limit: number) => void
}

/** A call under way, which is its own time limit. */
export interface Pending extends Timers.Timer {
  readonly call: Call
  readonly limit: number
  args: ReadonlyArray<string>
  onDone: ((outcome: Outcome) => void) | undefined
}

/** Calls that wait for the end of the turn. */
export interface Queue {
  readonly way: Way
  batches: Array<Array<Pending>>
  isScheduled: boolean
}

export const make = (way: Way): Queue => ({ way, batches: [], isScheduled: false })

/** The most locks in one command, so that others do not wait for long: the server does one command at a time. */
const most = 100

const unwanted: Failure = { _tag: "NotConnected", cause: new Error("this request was released before") }

const done = (pending: Pending, outcome: Outcome): void => {
  const { onDone } = pending
  pending.onDone = undefined
  onDone?.(outcome)
}

/** Sends a call at the end of this turn. `limit`: how long to wait for the answer, in milliseconds. */
export const call = (queue: Queue, call: Call, limit: number, onDone: (outcome: Outcome) => void): Pending => {
  const pending: Pending = {
    call,
    limit,
    args: [],
    onDone,
    due: 0,
    slot: -1,
    ring: () => {
      done(pending, { _tag: "Late" })
      queue.way.onLate(limit)
    }
  }
  const open = call.script.takesMany && !queue.way.isCluster
    ? queue.batches.find((batch) => batch[0]?.call.script === call.script && batch.length < most)
    : undefined
  if (open !== undefined) open.push(pending)
  else if (call.isFirst) queue.batches.unshift([pending])
  else queue.batches.push([pending])
  if (!queue.isScheduled) {
    queue.isScheduled = true
    process.nextTick(() => flush(queue))
  }
  return pending
}

/** The answer is not waited for any more. */
export const abandon = (pending: Pending): void => {
  pending.onDone = undefined
}

const flush = (queue: Queue): void => {
  const { batches, way } = queue
  queue.batches = []
  queue.isScheduled = false
  if (batches.length === 1) return batches.forEach((batch) => send(way, batch))
  way.together(() => batches.forEach((batch) => send(way, batch)))
}

const send = (way: Way, batch: ReadonlyArray<Pending>): void => {
  const sentAt = way.timers.now()
  const wanted: Array<Pending> = []
  for (const pending of batch) {
    if (pending.call.isWanted?.() === false) {
      done(pending, unwanted)
      continue
    }
    pending.args = pending.call.args(sentAt)
    way.timers.set(pending, sentAt + pending.limit)
    wanted.push(pending)
  }
  write(way, wanted, sentAt)
}

/**
 * EVALSHA, or the whole script when the server does not have it: it may have been restarted or flushed at any time.
 * `wasOnly`: no copy of the calls ran before, in whole or in part.
 */
const write = (way: Way, batch: ReadonlyArray<Pending>, sentAt: number, isWhole = false, wasOnly = true): void => {
  const script = batch[0]?.call.script
  if (script === undefined) return
  const words = [isWhole ? script.source : script.sha1, ""]
  for (const { call } of batch) words.push(...call.keys)
  words[1] = `${words.length - 2}`
  for (const pending of batch) words.push(...pending.args)
  way.post(isWhole ? "eval" : "evalsha", words, (failure, reply, isOnce) => {
    const isOnly = wasOnly && isOnce
    if (failure === undefined) {
      const replies: ReadonlyArray<unknown> = script.takesMany && Array.isArray(reply) ? reply : [reply]
      batch.forEach((pending, i) => settle(way, pending, { _tag: "Answered", reply: replies[i], sentAt }, isOnly))
    } else if (!isWhole && failure._tag === "Failed" && isNoScript(failure.cause)) {
      write(way, stillWanted(way, batch, failure, isOnly), sentAt, true, isOnly)
    } else if (batch.length > 1 && failure._tag === "Failed" && isAnswer(failure.cause)) {
      // What the server refuses, it may refuse because of one of the keys, after it did what was asked for others.
      const wanted = stillWanted(way, batch, failure, isOnly)
      way.together(() => wanted.forEach((pending) => write(way, [pending], sentAt, false, false)))
    } else {
      for (const pending of batch) settle(way, pending, failure, isOnly)
    }
  })
}

/** A release may have gone out meanwhile, and nothing is sent after it. */
const stillWanted = (
  way: Way,
  batch: ReadonlyArray<Pending>,
  failure: Failure,
  isOnly: boolean
): ReadonlyArray<Pending> =>
  batch.filter((pending) => {
    const isWanted = pending.call.isWanted?.() !== false
    if (!isWanted) settle(way, pending, failure, isOnly)
    return isWanted
  })

const isOver = (outcome: Outcome): boolean =>
  outcome._tag === "Answered" || outcome._tag === "NotConnected" ||
  (outcome._tag === "Failed" && isAnswer(outcome.cause))

const settle = (way: Way, pending: Pending, outcome: Outcome, isOnly: boolean): void => {
  way.timers.clear(pending)
  if (isOnly && isOver(outcome)) pending.call.onAnswer?.(outcome)
  done(pending, outcome)
}
