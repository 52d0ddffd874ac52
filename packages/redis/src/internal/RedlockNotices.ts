/**
 * How those who wait hear that a key was released: one connection to each server, opened when somebody first has to
 * wait, and one channel per key that somebody waits for.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type { Subscriber } from "./RedisClient.ts"
import { channelOf, lockOn } from "./RedlockAttempt.ts"
import type { RedlockNode } from "./RedlockNode.ts"

/** One who waits for a key. */
export interface Watch {
  /** Sleeps until the key seems to be free, or the time is over. `true`: it seems to be free. */
  readonly sleep: (limit: Duration.Duration, leader: number) => Effect.Effect<boolean>
  /** Ends the sleep. */
  readonly wake: () => void
  readonly leave: Effect.Effect<void>
}

export interface Notices {
  /** Returns when a majority of the servers will tell of releases, or after the limit. */
  readonly watch: (key: string, limit: Duration.Duration) => Effect.Effect<Watch>
}

interface Watcher {
  /** The servers that told of a release since the last sleep. */
  readonly heard: Set<number>
  /** The servers that tell. */
  readonly told: Set<number>
  readonly look: Latch.Latch
  readonly ready: Latch.Latch
  leader: number
}

/** The pause before a connection that failed is tried again. */
const pause = Duration.millis(250)

/** The watchers of the keys on one server, by the name of the key there. */
interface Listener {
  readonly add: (key: string, watcher: Watcher) => void
  readonly remove: (key: string, watcher: Watcher) => void
}

export const make = Effect.fnUntraced(function*(
  nodes: ReadonlyArray<RedlockNode>,
  majority: number,
  commandTimeout: Duration.Duration
): Effect.fn.Return<Notices, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const limit = Duration.toMillis(commandTimeout)
  const fork = Effect.runForkWith(yield* Effect.context<never>())

  const listen = (node: RedlockNode, index: number): Listener => {
    const watchers = new Map<string, Set<Watcher>>()
    let subscriber: Subscriber | undefined
    let isOpened = false
    const lost = Latch.makeUnsafe(false)

    const tell = (watcher: Watcher) => {
      watcher.told.add(index)
      if (watcher.told.size >= majority) watcher.ready.openUnsafe()
    }
    const onMessage = (lock: string) => {
      for (const watcher of watchers.get(lock) ?? []) {
        watcher.heard.add(index)
        if (watcher.heard.size >= majority || watcher.leader === index) watcher.look.openUnsafe()
      }
    }
    const onClose = () => {
      subscriber = undefined
      for (const [, ofKey] of watchers) for (const watcher of ofKey) watcher.told.delete(index)
      lost.openUnsafe()
    }
    const subscribe = (subscriber: Subscriber, locks: ReadonlyArray<string>) =>
      subscriber.send({ command: "subscribe", args: locks.map(channelOf), limit }).pipe(
        Effect.andThen(Effect.sync(() => {
          for (const lock of locks) for (const watcher of watchers.get(lock) ?? []) tell(watcher)
        }))
      )
    /** One connection, from its opening to its end. */
    const session = Effect.scoped(Effect.gen(function*() {
      lost.closeUnsafe()
      const connection = yield* node.client.subscriber
      yield* connection.listen(onMessage, onClose)
      yield* connection.connect
      subscriber = connection
      if (watchers.size > 0) yield* subscribe(connection, [...watchers.keys()])
      yield* lost.await
    }))
    const sessions = Effect.forever(Effect.catch(session, () => Effect.sleep(pause)))

    return {
      add: (key, watcher) => {
        const lock = lockOn(node, key)
        const ofKey = watchers.get(lock) ?? new Set()
        watchers.set(lock, ofKey)
        ofKey.add(watcher)
        if (!isOpened) {
          isOpened = true
          fork(Effect.forkIn(sessions, scope))
        } else if (subscriber !== undefined) {
          fork(Effect.ignore(subscribe(subscriber, [lock])))
        }
      },
      remove: (key, watcher) => {
        const lock = lockOn(node, key)
        const ofKey = watchers.get(lock)
        ofKey?.delete(watcher)
        if (ofKey?.size !== 0) return
        watchers.delete(lock)
        if (subscriber === undefined) return
        const channels = [channelOf(lock)]
        fork(Effect.ignore(
          subscriber.send({ command: "unsubscribe", args: channels, limit })
        ))
      }
    }
  }

  const listeners = nodes.map(listen)

  return {
    watch: (key, limit) =>
      Effect.suspend(() => {
        const watcher: Watcher = {
          heard: new Set(),
          told: new Set(),
          look: Latch.makeUnsafe(false),
          ready: Latch.makeUnsafe(false),
          leader: 0
        }
        for (const listener of listeners) listener.add(key, watcher)
        const watch: Watch = {
          sleep: (time, leader) =>
            Effect.suspend(() => {
              watcher.leader = leader
              if (watcher.heard.has(leader)) watcher.look.openUnsafe()
              return Effect.map(Effect.timeoutOption(watcher.look.await, time), () => {
                const { size } = watcher.heard
                watcher.heard.clear()
                watcher.look.closeUnsafe()
                return size > 0
              })
            }),
          wake: () => watcher.look.openUnsafe(),
          leave: Effect.sync(() => {
            for (const listener of listeners) listener.remove(key, watcher)
          })
        }
        return Effect.as(
          Effect.onInterrupt(Effect.timeoutOption(watcher.ready.await, limit), () => watch.leave),
          watch
        )
      })
  }
})
