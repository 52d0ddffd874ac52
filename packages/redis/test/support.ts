/**
 * A connection that answers as it is told.
 */
import { Effect } from "effect"
import type { Connection, Failure } from "../src/internal/RedisClient.ts"
import { Queue } from "../src/internal/RedisQueue.ts"

/** What was sent. */
export interface Sent {
  readonly command: string
  readonly args: ReadonlyArray<string>
}

/** What comes back: an answer, nothing at all, or a failure. */
export type Outcome = { readonly reply: unknown } | "silence" | Failure

export const refusal = (message: string): Outcome => ({
  _tag: "Failed",
  cause: Object.assign(new Error(message), { name: "ReplyError" })
})

export const setup = (answer: (sent: Sent, index: number) => Outcome) => {
  let nanos = 1_000_000_000_000n
  const sent: Array<Sent> = []
  let wire: object | undefined
  const waits = new Set<{ readonly expire: () => void }>()
  const queue = new Queue(
    (command, args, onReply) => {
      const index = sent.push({ command, args }) - 1
      const outcome = answer({ command, args }, index)
      if (outcome === "silence") return
      // A driver answers in another turn, but for what it can not send.
      if ("_tag" in outcome && outcome._tag === "NotConnected") return onReply(outcome, undefined, true)
      setImmediate(() =>
        "_tag" in outcome ? onReply(outcome, undefined, true) : onReply(undefined, outcome.reply, true)
      )
    },
    (write) => write(),
    { add: (deadline) => waits.add(deadline), remove: (deadline) => waits.delete(deadline) },
    () => nanos
  )
  const connection: Connection = {
    connect: Effect.void,
    ready: Effect.void,
    wire: () => wire,
    epoch: () => 1,
    now: () => nanos,
    send: () => Effect.die("not here"),
    call: (call, limit, onDone) => queue.call(call, limit, onDone)
  }
  return {
    sent,
    connection,
    /** From now on everything goes another way, which is known. */
    rewire: () => {
      wire = {}
    },
    /** What has not been answered yet is late. */
    expire: () => {
      for (const wait of waits) wait.expire()
      waits.clear()
    },
    pass: (millis: number) => {
      nanos += BigInt(millis) * 1_000_000n
    }
  }
}
