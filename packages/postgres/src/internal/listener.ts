/**
 * Messages to this process: one channel and one connection for all of them. The process sends a message to itself at
 * the start, and now and then while one may be waited for, so that a connection that delivers nothing is noticed.
 */
import type { LockBackendError } from "@dlock/core"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Crypto from "node:crypto"
import type { Client, Trouble } from "./client.ts"

/** How often a quiet connection is tested, in milliseconds. */
const heartbeat = 5000

/** How long a message to itself may take, in milliseconds. */
const testLimit = 1000

/** The pause before a connection is opened again, in milliseconds. */
const pause = 250

/** One request that waits. */
export interface Waiter {
  readonly look: Latch.Latch
  /** Whether the key was handed to it. */
  isGranted: boolean
}

/** What a holder is told. */
export interface Holder {
  readonly onLost: (reason: "taken") => void
  readonly onWanted: () => void
}

export class Listener {
  /** At most 63 bytes. */
  readonly channel = `dlock_${Crypto.randomUUID()}`
  /** Whether messages arrive. */
  isListening = false
  private readonly client: Client
  private readonly waiters = new Map<string, Waiter>()
  private readonly holders = new Map<string, Holder>()
  private readonly tested = Deferred.makeUnsafe<boolean>()
  private readonly heard = Latch.makeUnsafe(false)
  private readonly suspected = Latch.makeUnsafe(false)

  constructor(client: Client) {
    this.client = client
  }

  /** Listens for a waiter until it leaves. */
  register(owner: string): Waiter {
    const waiter: Waiter = { look: Latch.makeUnsafe(false), isGranted: false }
    this.waiters.set(owner, waiter)
    return waiter
  }

  leave(owner: string, waiter: Waiter): void {
    if (this.waiters.get(owner) === waiter) this.waiters.delete(owner)
  }

  /** Listens for a holder until it is forgotten. */
  hold(owner: string, holder: Holder): void {
    this.holders.set(owner, holder)
  }

  forget(owner: string): void {
    this.holders.delete(owner)
  }

  /** A message was missed: tests the connection now. */
  suspect(): void {
    this.suspected.openUnsafe()
  }

  private onMessage(payload: string): void {
    this.heard.openUnsafe()
    const space = payload.indexOf(" ")
    const owner = payload.slice(space + 1)
    switch (payload.slice(0, space)) {
      case "granted": {
        const waiter = this.waiters.get(owner)
        if (waiter === undefined) break
        waiter.isGranted = true
        waiter.look.openUnsafe()
        break
      }
      case "wanted":
        return this.holders.get(owner)?.onWanted()
      case "lost":
        return this.holders.get(owner)?.onLost("taken")
    }
  }

  /** Sends a message to this process; answers whether it comes. */
  private readonly hears: Effect.Effect<boolean, LockBackendError> = Effect.suspend(() => {
    this.heard.closeUnsafe()
    return this.client.question("listen", "select pg_notify($1, 'test ')", [this.channel]).pipe(
      Effect.andThen(Effect.timeoutOption(this.heard.await, testLimit)),
      Effect.map(Option.isSome)
    )
  })

  /** Tests the connection now and then, until it delivers nothing more; answers whether any ever did. */
  private readonly test: Effect.Effect<boolean, LockBackendError> = Effect.gen({ self: this }, function*() {
    let hears = (yield* this.hears) || (yield* this.hears)
    Deferred.doneUnsafe(this.tested, Effect.succeed(hears))
    if (!hears) return yield* Deferred.await(this.tested)
    this.isListening = true
    // Messages may have been missed.
    for (const waiter of this.waiters.values()) waiter.look.openUnsafe()
    while (hears) {
      this.suspected.closeUnsafe()
      const asked = yield* Effect.timeoutOption(this.suspected.await, heartbeat)
      if (Option.isSome(asked) || this.waiters.size + this.holders.size > 0) hears = yield* this.hears
    }
    return true
  })

  /** One connection, from its opening to its end; answers whether messages ever arrived. */
  private readonly connection: Effect.Effect<boolean, Trouble> = Effect.scopedWith((scope) =>
    Effect.flatMap(
      this.client.opened(this.client.driver.listen(this.channel), scope),
      (queue) =>
        Effect.raceFirst(
          Effect.forever(Effect.map(Queue.take(queue), ({ payload }) => this.onMessage(payload))),
          this.test
        )
    )
  ).pipe(Effect.ensuring(Effect.sync(() => {
    this.isListening = false
  })))

  /**
   * Listens in the background; answers whether messages arrive. A pooler in transaction mode accepts LISTEN and delivers
   * nothing, and is not asked again.
   */
  readonly start: Effect.Effect<boolean> = Effect.suspend(() => {
    const again = Effect.orElseSucceed(this.connection, () => true)
    this.client.fork(Effect.repeat(again, { while: (heard) => heard, schedule: Schedule.spaced(pause) }))
    return Effect.map(
      Effect.timeoutOption(Deferred.await(this.tested), this.client.limit),
      Option.getOrElse(() => false)
    )
  })
}
