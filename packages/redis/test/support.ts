/**
 * A connection that answers as it is told.
 */
import type { LockRequest } from "@dlock/core"
import { Effect } from "effect"
import type { Connection } from "../src/internal/client.ts"
import * as commands from "../src/internal/commands.ts"
import * as errors from "../src/internal/errors.ts"
import type { Failure } from "../src/internal/errors.ts"

/** What was sent. */
export interface Sent {
  readonly command: string
  readonly args: ReadonlyArray<string>
}

/** What comes back: an answer, nothing at all, or a failure. */
export type Outcome = { readonly reply: unknown } | "silence" | Failure

export const refusal = (message: string): Failure => ({
  _tag: "Failed",
  cause: Object.assign(new Error(message), { name: "ReplyError" })
})

export const requestOf = (key: string, owner: string, spare = 0): LockRequest => ({
  key,
  owner,
  ttl: 30_000,
  spare,
  onLost: () => {},
  onWanted: () => {}
})

export const setup = (answer: (sent: Sent, index: number) => Outcome, isCluster = false) => {
  let now = 1_000_000
  const sent: Array<Sent> = []
  const waits = new Set<{ readonly ring: (now: number) => void, due: number }>()
  const timers = {
    now: () => now,
    set: (timer: { readonly ring: (now: number) => void, due: number }, due: number) => {
      timer.due = due
      waits.add(timer)
    },
    clear: (timer: { readonly ring: (now: number) => void, due: number }) => waits.delete(timer)
  }
  const queue = commands.make({
    isCluster,
    post: (command, args, onReply) => {
      const index = sent.push({ command, args }) - 1
      const outcome = answer({ command, args }, index)
      if (outcome === "silence") return
      // A driver answers in another turn, but for what it cannot send.
      if ("_tag" in outcome && outcome._tag === "NotConnected") return onReply(outcome, undefined, true)
      setImmediate(() =>
        "_tag" in outcome ? onReply(outcome, undefined, true) : onReply(undefined, outcome.reply, true)
      )
    },
    together: (write) => write(),
    timers,
    onLate: () => {}
  })
  const toError = errors.make("redis")
  const connection: Connection = {
    isCluster,
    keyPrefix: "",
    timers,
    queue,
    open: Effect.die("not here"),
    ready: Effect.void,
    send: () => Effect.die("not here"),
    places: () => [],
    placeOf: () => undefined,
    onPlaces: () => {},
    subscribe: () => Effect.die("not here"),
    address: () => undefined,
    toError: (operation, failure) => toError(operation, failure)
  }
  return {
    sent,
    connection,
    /** What has not been answered yet is late. */
    expire: () => {
      const due = [...waits]
      waits.clear()
      for (const wait of due) wait.ring(now)
    },
    pass: (millis: number) => {
      now += millis
    }
  }
}
