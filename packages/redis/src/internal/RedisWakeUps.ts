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
import type { Failure, RedisClient } from "./RedisClient.ts"
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
  /** A message did not come that should have: finds out whether the connection is dead. */
  readonly doubt: Effect.Effect<void>
}

/** The pause before a refused subscription is tried again. */
const pause = Duration.millis(250)

export const make = Effect.fnUntraced(function*(
  client: RedisClient,
  channelPrefix: string,
  limit: Duration.Duration
): Effect.fn.Return<WakeUps, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const nanos = Duration.toNanosUnsafe(limit)
  const channel = `${channelPrefix}dlock-wake/${Crypto.randomUUID()}`
  const waiters = new Map<string, { readonly look: Latch.Latch, handed: boolean }>()
  const change = Latch.makeUnsafe(false)
  const lost = Latch.makeUnsafe(false)
  let opened = false
  let isSubscribed = false
  let trouble: Failure | undefined
  let doubt: Effect.Effect<void> = Effect.void

  const onMessage = (owner: string) => {
    const waiter = waiters.get(owner)
    if (waiter === undefined) return
    waiter.handed = true
    waiter.look.openUnsafe()
  }
  const onClose = () => {
    isSubscribed = false
    lost.openUnsafe()
  }
  const onSubscribed = () => {
    isSubscribed = true
    trouble = undefined
    change.openUnsafe()
    // Messages may have been missed: everybody looks for himself.
    for (const waiter of waiters.values()) waiter.look.openUnsafe()
  }

  /** One connection, from its opening to its end. */
  const subscription = Effect.scoped(Effect.gen(function*() {
    isSubscribed = false
    lost.closeUnsafe()
    const subscriber = yield* client.subscriber
    yield* subscriber.listen(onMessage, onClose)
    yield* subscriber.connect
    yield* subscriber.send({ command: "subscribe", args: () => [channel], limit: nanos })
    doubt = Effect.ignore(subscriber.send({ command: "ping", args: () => [], limit: nanos }))
    onSubscribed()
    yield* lost.await
  }))
  const subscriptions = subscription.pipe(
    Effect.catch((failure) => {
      trouble = failure
      change.openUnsafe()
      return Effect.sleep(pause)
    }),
    Effect.forever
  )

  const untilSubscribed: Effect.Effect<void, LockBackendError> = Effect.suspend(() => {
    if (isSubscribed) return Effect.void
    if (trouble?._tag === "Failed" && RedisError.isAnswer(trouble.cause)) {
      return Effect.fail(RedisCall.toError("subscribe", trouble))
    }
    change.closeUnsafe()
    return Effect.flatMap(change.await, () => untilSubscribed)
  })

  return {
    channel,
    isSubscribed: () => isSubscribed,
    subscribed: Effect.suspend(() => {
      if (isSubscribed) return Effect.void
      const start = opened ? Effect.void : Effect.forkIn(subscriptions, scope)
      opened = true
      return Effect.andThen(start, untilSubscribed).pipe(
        Effect.timeoutOrElse({
          duration: limit,
          orElse: () => Effect.fail(RedisCall.toError("subscribe", trouble ?? { _tag: "Late" }))
        })
      )
    }),
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
    doubt: Effect.suspend(() => Effect.asVoid(Effect.forkIn(doubt, scope)))
  }
})
