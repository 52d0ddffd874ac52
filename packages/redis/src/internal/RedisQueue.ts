/**
 * Calls of scripts. Those of one verb that are made in one turn of the event loop go out as one command, because a command
 * costs both sides more than what it does for one lock.
 */
import type { Deadlines } from "./Deadlines.ts"
import { Deadline } from "./Deadlines.ts"
import type { Failure } from "./RedisClient.ts"
import * as RedisError from "./RedisError.ts"
import type { Script } from "./RedisScripts.ts"

/** What is called. Calls that have the same one in common may go out together. */
export interface Verb {
  readonly script: Script
  /** The KEYS and the ARGV that stand before those of the locks. */
  readonly keys: ReadonlyArray<string>
  readonly args: ReadonlyArray<string>
  /** Whether the calls of a turn go out together. In a cluster a command has keys of one slot only. */
  readonly joins: boolean
  /** Whether it goes out before the other calls of its turn: a key is given back before the next asks for it. */
  readonly isFirst: boolean
}

/** The call of a script for one lock. Every script may be sent twice. */
export interface Call {
  readonly verb: Verb
  readonly keys: ReadonlyArray<string>
  /** Called when it is written. */
  readonly args: (sentAt: bigint) => ReadonlyArray<string>
  /** Called when the server has answered, and nothing is under way, also if nobody waits for it any more. */
  readonly onAnswer?: (() => void) | undefined
  /** Whether it is still to be sent. Default: yes. */
  readonly isWanted?: (() => boolean) | undefined
}

/** What the server answered for one lock. */
export interface Answered {
  readonly _tag: "Answered"
  readonly reply: unknown
  /** The end of the whole answer, where some scripts tell what is not of one lock alone. */
  readonly end: unknown
  /** `Clock.monotonicTimeNanos`, just before the call was written. */
  readonly sentAt: bigint
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

/** The most locks in one command, so that others do not wait for long: the server does one command at a time. */
const most = 100

/** A call under way. */
export class Pending extends Deadline {
  readonly call: Call
  args: ReadonlyArray<string> = []
  readonly limit: number
  private onDone: ((outcome: Outcome) => void) | undefined

  constructor(call: Call, limit: number, onDone: (outcome: Outcome) => void) {
    super()
    this.call = call
    this.limit = limit
    this.onDone = onDone
  }

  expire(): void {
    this.done({ _tag: "Late" })
  }

  /** Nobody waits for it any more. */
  abandon(): void {
    this.onDone = undefined
  }

  done(outcome: Outcome): void {
    const { onDone } = this
    this.onDone = undefined
    onDone?.(outcome)
  }
}

const isAnswer = (failure: Failure): boolean => failure._tag === "Failed" && RedisError.isAnswer(failure.cause)

const isNoScript = (failure: Failure): boolean => failure._tag === "Failed" && RedisError.isNoScript(failure.cause)

const givenBack: Failure = { _tag: "NotConnected", cause: new Error("this attempt was given back before") }

export class Queue {
  private readonly post: Post
  private readonly together: (write: () => void) => void
  private readonly deadlines: Deadlines
  private readonly now: () => bigint
  private batches: Array<Array<Pending>> = []
  private isScheduled = false

  /** `together`: what is written meanwhile goes out at once. */
  constructor(post: Post, together: (write: () => void) => void, deadlines: Deadlines, now: () => bigint) {
    this.post = post
    this.together = together
    this.deadlines = deadlines
    this.now = now
  }

  /** Sends a call at the end of this turn. `limit`: how long to wait for the answer, in ms. */
  call(call: Call, limit: number, onDone: (outcome: Outcome) => void): Pending {
    const pending = new Pending(call, limit, onDone)
    const open = call.verb.joins
      ? this.batches.find((batch) => batch[0]?.call.verb === call.verb && batch.length < most)
      : undefined
    if (open !== undefined) open.push(pending)
    else if (call.verb.isFirst) this.batches.unshift([pending])
    else this.batches.push([pending])
    if (!this.isScheduled) {
      this.isScheduled = true
      process.nextTick(() => this.flush())
    }
    return pending
  }

  private flush(): void {
    const { batches } = this
    this.batches = []
    this.isScheduled = false
    if (batches.length === 1) return batches.forEach((batch) => this.send(batch))
    this.together(() => batches.forEach((batch) => this.send(batch)))
  }

  private send(batch: ReadonlyArray<Pending>): void {
    const sentAt = this.now()
    const millis = Number(sentAt) / 1e6
    const wanted: Array<Pending> = []
    for (const pending of batch) {
      if (pending.call.isWanted?.() === false) {
        pending.done(givenBack)
        continue
      }
      pending.args = pending.call.args(sentAt)
      pending.at = millis + pending.limit
      this.deadlines.add(pending)
      wanted.push(pending)
    }
    this.write(wanted, sentAt)
  }

  /** EVALSHA, or EVAL when the server does not have the script: it may have been restarted or flushed at any time. */
  private write(batch: ReadonlyArray<Pending>, sentAt: bigint, isWhole = false, wasOnly = true): void {
    const verb = batch[0]?.call.verb
    if (verb === undefined) return
    const { args, keys, script } = verb
    const words = [isWhole ? script.source : script.sha1, "", ...keys]
    for (const { call } of batch) words.push(...call.keys)
    words[1] = `${words.length - 2}`
    words.push(...args)
    for (const pending of batch) words.push(...pending.args)
    this.post(isWhole ? "eval" : "evalsha", words, (failure, reply, isOnce) => {
      const isOnly = wasOnly && isOnce
      if (failure === undefined) {
        const list: ReadonlyArray<unknown> = Array.isArray(reply) ? reply : [reply]
        const end = list.at(-1)
        batch.forEach((pending, i) => this.settle(pending, { _tag: "Answered", reply: list[i], end, sentAt }, isOnly))
      } else if (!isWhole && isNoScript(failure)) {
        this.write(this.stillWanted(batch, failure, isOnly), sentAt, true, isOnly)
      } else if (batch.length > 1 && isAnswer(failure)) {
        // What the server refuses, it may refuse because of one of the keys.
        const wanted = this.stillWanted(batch, failure, isOnly)
        this.together(() => wanted.forEach((pending) => this.write([pending], sentAt, false, isOnly)))
      } else {
        for (const pending of batch) this.settle(pending, failure, isOnly)
      }
    })
  }

  /** A give-back may have gone out meanwhile, and nothing is sent after it. */
  private stillWanted(
    batch: ReadonlyArray<Pending>,
    failure: Failure,
    isOnly: boolean
  ): ReadonlyArray<Pending> {
    return batch.filter((pending) => {
      const isWanted = pending.call.isWanted?.() !== false
      if (!isWanted) this.settle(pending, failure, isOnly)
      return isWanted
    })
  }

  private settle(pending: Pending, outcome: Outcome, isOnly: boolean): void {
    this.deadlines.remove(pending)
    if (isOnly && (outcome._tag === "Answered" || isAnswer(outcome))) pending.call.onAnswer?.()
    pending.done(outcome)
  }
}
