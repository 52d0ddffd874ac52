/**
 * A connection for messages, opened when a channel is first listened to, and again whenever it breaks.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type { Connection } from "./client.ts"
import type { Failure } from "./errors.ts"
import type { Subscriber } from "./messages.ts"

/** What listens to a channel. */
export interface Channel {
  readonly onMessage: (message: string) => void
  /** Messages arrive from now on; some may have been missed. */
  readonly onLive: () => void
  /** Messages do not arrive any more. */
  readonly onDeaf: (failure?: Failure) => void
}

export interface Subscription {
  readonly connection: Connection
  readonly fork: (effect: Effect.Effect<unknown>) => Fiber.Fiber<unknown>
  readonly channels: Map<string, Set<Channel>>
  subscriber: Subscriber | undefined
  isOpened: boolean
  /** Opened when the connection is to end. */
  readonly end: Latch.Latch
}

/** From the beginning of one connection to that of the next at least, in milliseconds: it may end as soon as it begins. */
const pause = 250

export const make = Effect.fnUntraced(function*(
  connection: Connection
): Effect.fn.Return<Subscription, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  return {
    connection,
    fork: (effect) => fork(Effect.forkIn(effect, scope)),
    channels: new Map(),
    subscriber: undefined,
    isOpened: false,
    end: Latch.makeUnsafe(false)
  }
})

/** Begins to listen. */
export const add = (subscription: Subscription, name: string, channel: Channel): void => {
  const { channels, fork, subscriber } = subscription
  const others = channels.get(name)
  channels.set(name, (others ?? new Set()).add(channel))
  if (!subscription.isOpened) {
    subscription.isOpened = true
    fork(sessions(subscription))
  } else if (subscriber !== undefined) {
    fork(Effect.catch(subscribeTo(subscription, subscriber, [name]), () => close(subscription)))
  }
}

/** Ends to listen. */
export const remove = ({ channels, fork, subscriber }: Subscription, name: string, channel: Channel): void => {
  const all = channels.get(name)
  all?.delete(channel)
  if (all?.size !== 0) return
  channels.delete(name)
  if (subscriber !== undefined) fork(Effect.ignore(subscriber.unsubscribe([name])))
}

/** Ends the connection; another one is opened. */
export const close = ({ end }: Subscription): Effect.Effect<void> => Effect.sync(() => end.openUnsafe())

const deafen = (subscription: Subscription, failure?: Failure): void => {
  subscription.subscriber = undefined
  for (const all of subscription.channels.values()) for (const channel of all) channel.onDeaf(failure)
}

const subscribeTo = ({ channels }: Subscription, subscriber: Subscriber, names: ReadonlyArray<string>) =>
  Effect.map(subscriber.subscribe(names), () => {
    for (const name of names) for (const channel of channels.get(name) ?? []) channel.onLive()
  })

/** One connection, from its opening to its end. */
const session = (subscription: Subscription) =>
  Effect.scoped(Effect.gen(function*() {
    const { channels, connection, end } = subscription
    end.closeUnsafe()
    const subscriber = yield* connection.subscribe({
      onMessage: (name, message) => {
        for (const channel of channels.get(name) ?? []) channel.onMessage(message)
      },
      onClose: () => {
        deafen(subscription)
        end.openUnsafe()
      }
    })
    subscription.subscriber = subscriber
    if (channels.size > 0) yield* subscribeTo(subscription, subscriber, [...channels.keys()])
    yield* end.await
    deafen(subscription)
  }))

const sessions = (subscription: Subscription): Effect.Effect<never> => {
  const { timers } = subscription.connection
  return Effect.forever(Effect.suspend(() => {
    const next = timers.now() + pause
    return Effect.catch(session(subscription), (failure) => Effect.sync(() => deafen(subscription, failure))).pipe(
      Effect.andThen(Effect.suspend(() => Effect.sleep(Math.max(next - timers.now(), 0))))
    )
  }))
}
