/**
 * Connections for messages: those of other processes, and those of sentinels that tell of a new master.
 */
import type { Timers } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type { Redis } from "ioredis"
import * as drivers from "./drivers.ts"
import type { Failure } from "./errors.ts"
import { dial, ignore, type Link, listenTo, makeLink, sendBy, write } from "./link.ts"

/** What is told on a connection for messages. */
export interface Listener {
  readonly onMessage: (channel: string, message: string) => void
  readonly onClose: () => void
}

/** A connection for messages. */
export interface Subscriber {
  /** Returns when the server has confirmed it. */
  readonly subscribe: (channels: ReadonlyArray<string>) => Effect.Effect<void, Failure>
  readonly unsubscribe: (channels: ReadonlyArray<string>) => Effect.Effect<void, Failure>
  /** Fails if the connection is dead. */
  readonly ping: Effect.Effect<void, Failure>
}

/** A driver of our own for messages. */
export const open = Effect.fnUntraced(function*(
  driver: Redis,
  limit: number,
  timers: Timers.Timers,
  { onClose, onMessage }: Listener
): Effect.fn.Return<Subscriber, Failure, Scope.Scope> {
  const link = yield* makeLink(driver, { own: true, limit }, timers)
  yield* listenTo(driver, "close", onClose)
  driver.on("message", onMessage)
  yield* dial(link)
  const send = sendBy(link, write(link), ignore)
  return {
    subscribe: (channels) => send("subscribe", channels, limit),
    unsubscribe: (channels) => send("unsubscribe", channels, limit),
    ping: send("ping", [], limit)
  }
})

const switchMaster = "+switch-master"

/**
 * Breaks the connection whenever a sentinel tells of another master: one that was replaced may live on, and grant locks
 * to clients that do not hear of it.
 */
export const leaveOldMasters = Effect.fnUntraced(
  function*(driver: Redis, link: Link, prepare: Effect.Effect<void, Failure>) {
    const { name } = driver.options
    let leavesLater = false
    const leave = () => {
      // While it connects, the driver would take this for its end, and it may be on its way to the old master.
      leavesLater = driver.status !== "ready"
      if (!leavesLater) driver.disconnect(true)
    }
    yield* listenTo(driver, "ready", () => {
      if (leavesLater) leave()
    })
    const onMessage = (_: string, message: string) => {
      if (message.startsWith(`${name} `)) leave()
    }
    const hear = (index: number) =>
      Effect.scoped(Effect.gen(function*() {
        yield* prepare
        const closed = Latch.makeUnsafe(false)
        const sentinel = drivers.toSentinels(driver, link.limit)[index]
        if (sentinel === undefined) return yield* Effect.never
        const listener = { onMessage, onClose: () => closed.openUnsafe() }
        const subscriber = yield* open(sentinel, link.limit, link.timers, listener)
        yield* subscriber.subscribe([switchMaster])
        yield* closed.await
      })).pipe(Effect.ignore, Effect.andThen(Effect.sleep("1 second")), Effect.forever)
    for (const index of (driver.options.sentinels ?? []).keys()) yield* Effect.forkScoped(hear(index))
  }
)
