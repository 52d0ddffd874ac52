/**
 * What other processes tell this one: that a key was handed to one of its waiters, that another process waits for a key
 * that it holds, or that a hold was revoked. There is one channel for all of it.
 */
import type { LockBackendError } from "@dlock/core"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { Failure } from "./errors.ts"
import { isAnswer, passes } from "./errors.ts"
import type { Holds } from "./holds.ts"
import * as holds from "./holds.ts"
import { Message } from "./scripts.ts"
import * as subscription from "./subscription.ts"
import type { Subscription } from "./subscription.ts"

/** A request that waits. */
interface Waiter {
  readonly look: Latch.Latch
  handed: boolean
}

export interface Inbox {
  readonly subscription: Subscription
  readonly channel: string
  readonly holds: Holds
  /** PUBLISH and NUMSUB answer how many hear it. */
  readonly countsReceivers: boolean
  /** The longest wait for an answer, in milliseconds. */
  readonly limit: number
  /** Called when messages arrive again: some may have been missed. */
  readonly onLive: () => void
  readonly waiters: Map<string, Waiter>
  readonly change: Latch.Latch
  isOpened: boolean
  isLive: boolean
  /** Why messages do not arrive. */
  trouble: Failure | undefined
  isVerifying: boolean
  /** How many messages did not come since the last that did. */
  missed: number
}

/** How many messages in a row may fail to come before another node of a cluster is listened to. */
const maxMissed = 3

export const make = (
  means: Pick<Inbox, "subscription" | "channel" | "holds" | "countsReceivers" | "limit" | "onLive">
): Inbox => ({
  ...means,
  waiters: new Map(),
  change: Latch.makeUnsafe(false),
  isOpened: false,
  isLive: false,
  trouble: undefined,
  isVerifying: false,
  missed: 0
})

const onMessage = (inbox: Inbox, message: string): void => {
  const owner = message.slice(1)
  const kind = message[0]
  if (kind === Message.handed) {
    inbox.missed = 0
    const waiter = inbox.waiters.get(owner)
    if (waiter === undefined) return
    waiter.handed = true
    waiter.look.openUnsafe()
    return
  }
  const hold = holds.find(inbox.holds, owner)
  if (hold === undefined) return
  if (kind === Message.wanted) hold.request.onWanted()
  else if (kind === Message.revoked) holds.lose(inbox.holds, hold)
}

const open = (inbox: Inbox): void => {
  if (inbox.isOpened) return
  inbox.isOpened = true
  subscription.add(inbox.subscription, inbox.channel, {
    onMessage: (message) => onMessage(inbox, message),
    onLive: () => {
      inbox.isLive = true
      inbox.missed = 0
      inbox.trouble = undefined
      inbox.change.openUnsafe()
      // Messages may have been missed: every waiter looks.
      for (const waiter of inbox.waiters.values()) waiter.look.openUnsafe()
      inbox.onLive()
    },
    onDeaf: (failure) => {
      inbox.isLive = false
      inbox.trouble = failure
      inbox.change.openUnsafe()
    }
  })
}

const isRefused = (failure: Failure | undefined): failure is Failure =>
  failure?._tag === "Failed" && isAnswer(failure.cause) && !passes(failure)

/**
 * Returns when messages arrive, or `patience` milliseconds are over: a waiter also looks now and then, so it stands in
 * line without messages where a connection for them cannot be had. Fails where they are refused.
 */
export const live = (inbox: Inbox, patience: number): Effect.Effect<void, LockBackendError> => {
  const { connection } = inbox.subscription
  const untilLive: Effect.Effect<void, LockBackendError> = Effect.suspend(() => {
    if (inbox.isLive) return Effect.void
    if (isRefused(inbox.trouble)) return Effect.fail(connection.toError("subscribe", inbox.trouble))
    inbox.change.closeUnsafe()
    return Effect.andThen(inbox.change.await, untilLive)
  })
  return Effect.suspend(() => {
    open(inbox)
    return Effect.asVoid(Effect.timeoutOption(untilLive, patience))
  })
}

/** Listens for an owner, until it leaves. */
export const register = ({ waiters }: Inbox, owner: string): Waiter => {
  const waiter = { look: Latch.makeUnsafe(false), handed: false }
  waiters.set(owner, waiter)
  return waiter
}

export const leave = ({ waiters }: Inbox, owner: string): Effect.Effect<void> =>
  Effect.sync(() => {
    waiters.delete(owner)
  })

/** Sleeps until there is a message, something was missed, or the time is over. `true`: the key was handed to us. */
export const sleep = (waiter: Waiter, millis: number): Effect.Effect<boolean> =>
  Effect.map(Effect.timeoutOption(waiter.look.await, millis), () => {
    const { handed } = waiter
    waiter.handed = false
    waiter.look.closeUnsafe()
    return handed
  })

/** Ends the subscription if its connection is dead, or leads to where no messages are. */
const verify = Effect.fnUntraced(function*({ channel, countsReceivers, limit, missed, subscription: own }: Inbox) {
  const { connection, subscriber } = own
  if (subscriber === undefined) return
  yield* subscriber.ping
  if (countsReceivers) {
    const { reply } = yield* connection.send("pubsub", ["NUMSUB", channel], limit)
    if (Array.isArray(reply) && Number(reply[1]) === 0) yield* subscription.close(own)
  } else if (missed >= maxMissed) yield* subscription.close(own)
})

/** A message that was expected did not arrive: checks whether messages can, and opens another subscription if not. */
export const reportMissed = (inbox: Inbox): void => {
  inbox.missed++
  if (inbox.isVerifying) return
  inbox.isVerifying = true
  inbox.subscription.fork(
    Effect.ensuring(Effect.ignore(verify(inbox)), Effect.sync(() => inbox.isVerifying = false))
  )
}
