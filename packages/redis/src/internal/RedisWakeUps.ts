/**
 * How a process learns that a key was handed to one of its waiters: one channel and one connection for all of them,
 * opened when somebody first has to wait.
 */
import type { LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import * as Crypto from "node:crypto"
import * as RedisCall from "./RedisCall.ts"
import type { Connection, Failure, RedisClient } from "./RedisClient.ts"
import * as RedisError from "./RedisError.ts"

/** One who waits. */
export interface Waiter {
  /** Sleeps until there is a message, something was missed, or the time is over. `true`: the key was handed to us. */
  readonly sleep: (limit: Duration.Duration) => Effect.Effect<boolean>
  readonly leave: Effect.Effect<void>
}

export interface WakeUps {
  /** The channel of this process. */
  readonly channel: string
  readonly isSubscribed: () => boolean
  /** Returns when the server has confirmed the subscription: a message from then on arrives. */
  readonly subscribed: Effect.Effect<void, LockBackendError>
  /** Listens for an owner, until he leaves. */
  readonly register: (owner: string) => Waiter
  /** A message did not come that should have: finds out whether any can, and mends it. */
  readonly doubt: Effect.Effect<void>
}

/** How many messages in a row may fail to come before another node of a cluster is listened to. */
const maxMissed = 3

/** The pause before a refused subscription is tried again. */
const pause = Duration.millis(250)

export const make = Effect.fnUntraced(function*(
  client: RedisClient,
  options: {
    readonly channelPrefix: string
    readonly limit: Duration.Duration
    /** PUBLISH and NUMSUB answer how many hear it. */
    readonly countReceivers: boolean
  }
): Effect.fn.Return<WakeUps, never, Scope.Scope> {
  const { channelPrefix, limit } = options
  const scope = yield* Effect.scope
  const limitMillis = Duration.toMillis(limit)
  const channel = `${channelPrefix}dlock-wake/${Crypto.randomUUID()}`
  const waiters = new Map<string, { readonly look: Latch.Latch, handed: boolean }>()
  const change = Latch.makeUnsafe(false)
  let opened = false
  /** Ends the subscription that there is. */
  let subscribed: Latch.Latch | undefined
  let trouble: Failure | undefined
  let verify: Effect.Effect<void> = Effect.void
  let isVerifying = false
  /** How many messages did not come since the last that did. */
  let missed = 0

  const onMessage = (owner: string) => {
    missed = 0
    const waiter = waiters.get(owner)
    if (waiter === undefined) return
    waiter.handed = true
    waiter.look.openUnsafe()
  }
  const lookAll = () => {
    for (const waiter of waiters.values()) waiter.look.openUnsafe()
  }

  /** Ends the subscription if its connection is dead, or leads to where no messages are. */
  const verified = (subscriber: Connection, end: Latch.Latch) =>
    Effect.gen(function*() {
      yield* subscriber.send({ command: "ping", args: [], limit: limitMillis })
      if (options.countReceivers) {
        const { reply } = yield* client.send({ command: "pubsub", args: ["NUMSUB", channel], limit: limitMillis })
        if (Array.isArray(reply) && Number(reply[1]) === 0) end.openUnsafe()
      } else if (missed >= maxMissed) end.openUnsafe()
    }).pipe(Effect.ignore)

  /** One connection, from its opening to its end. */
  const subscription = Effect.scoped(Effect.gen(function*() {
    const end = Latch.makeUnsafe(false)
    const subscriber = yield* client.subscriber
    yield* subscriber.listen(onMessage, () => {
      if (subscribed === end) subscribed = undefined
      end.openUnsafe()
    })
    yield* subscriber.connect
    yield* subscriber.send({ command: "subscribe", args: [channel], limit: limitMillis })
    subscribed = end
    missed = 0
    trouble = undefined
    verify = verified(subscriber, end)
    change.openUnsafe()
    // Messages may have been missed: everybody looks for himself.
    lookAll()
    yield* end.await
    if (subscribed === end) subscribed = undefined
  }))
  const subscriptions = subscription.pipe(
    Effect.catch((failure) => {
      trouble = failure
      change.openUnsafe()
      return Effect.sleep(pause)
    }),
    Effect.forever
  )

  // What is noted down as begun must begin, also when whoever asked for it is interrupted at that moment.
  const open = Effect.uninterruptible(Effect.suspend(() => {
    if (opened) return Effect.void
    opened = true
    return Effect.forkIn(subscriptions, scope)
  }))

  const untilSubscribed: Effect.Effect<void, LockBackendError> = Effect.suspend(() => {
    if (subscribed !== undefined) return Effect.void
    if (trouble?._tag === "Failed" && RedisError.isAnswer(trouble.cause)) {
      return Effect.fail(RedisCall.toError("subscribe", trouble))
    }
    change.closeUnsafe()
    return Effect.flatMap(change.await, () => untilSubscribed)
  })

  return {
    channel,
    isSubscribed: () => subscribed !== undefined,
    subscribed: Effect.andThen(
      open,
      Effect.timeoutOrElse(untilSubscribed, {
        duration: limit,
        orElse: () => Effect.fail(RedisCall.toError("subscribe", trouble ?? { _tag: "Late" }))
      })
    ),
    register: (owner) => {
      const waiter = { look: Latch.makeUnsafe(false), handed: false }
      waiters.set(owner, waiter)
      return {
        sleep: (time) =>
          Effect.map(Effect.timeoutOption(waiter.look.await, time), () => {
            const { handed } = waiter
            waiter.handed = false
            waiter.look.closeUnsafe()
            return handed
          }),
        leave: Effect.sync(() => {
          if (waiters.get(owner) === waiter) waiters.delete(owner)
        })
      }
    },
    doubt: Effect.uninterruptible(Effect.suspend(() => {
      missed++
      if (isVerifying) return Effect.void
      isVerifying = true
      return Effect.asVoid(Effect.forkIn(Effect.ensuring(verify, Effect.sync(() => isVerifying = false)), scope))
    }))
  }
})
