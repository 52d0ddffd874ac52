/**
 * The session that all locks of a backend live on: one at a time, over as many connections as it takes.
 *
 * It is the leader that ends a session, and a server tells the leader only every half tick which of its sessions it has
 * heard of. So when that server and we are cut off from the leader together, the leader may not know of our latest
 * request, and the server goes on answering reads for a while. Therefore the heartbeat is a write, to which the leader
 * has to agree, and what its answer proves is that the leader knows of the heartbeat before it: holds are good for the
 * session's timeout from the sending of that one. Heartbeats are a quarter of the timeout apart, which is no less than
 * half a tick, because the shortest session is two ticks.
 *
 * A new connection is the exception: the server asks the leader about the session that comes with it, and the leader
 * counts from there. So after a suspension a fresh answer takes a new connection: the monotonic clock did not count the
 * time that the process slept, and nothing that was sent before proves anything.
 */
import { Timers } from "@dlock/core/backend"
import type { Validity } from "@dlock/core/LockBackend"
import type { LockBackendError, LossReason } from "@dlock/core/LockError"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Client, Events } from "./client.ts"
import type { Opened } from "./connection.ts"
import { codes, errors, refused } from "./errors.ts"
import { remove } from "./requests.ts"

/** Is told when the session is lost. */
export interface Holder {
  readonly onLost: (reason: LossReason) => void
}

/** What a session is made of. All times are milliseconds. */
export interface Settings {
  /** Makes a client. A given one cannot be made anew when its session ends. */
  readonly open: (events: Events, now: () => number) => Opened
  readonly isGiven: boolean
  /** The servers, for people. */
  readonly servers: string
  /** A path that never exists. */
  readonly nowhere: string
  readonly commandTimeout: number
  /** As asked for. */
  readonly sessionTimeout: number
}

type Answered = (answered: boolean) => void

/** What the wall clock, which counts whole milliseconds, gains on the monotonic one by more than this is a suspension. */
const noise = 1

/** For this long after a suspension, answers have to be younger than the question. Milliseconds. */
const news = 2000

export class Session {
  readonly settings: Settings
  readonly timers: Timers.Timers
  /** How many sessions there were. What was created in an earlier one is gone. */
  epoch = 0
  /** Why there is no client, if so. */
  problem: ((operation: string) => LockBackendError) | undefined
  readonly holders = new Set<Holder>()
  /** Called once, at the next connection, problem or answered heartbeat. */
  readonly onChange = new Set<() => void>()
  private readonly clock: Clock.Clock
  private readonly events: Events
  private opened: Opened
  private sessionId = 0n
  private ttl: number
  private validFrom: number
  private latestHeartbeat = 0
  /** When a given client was found connected; the session has no heartbeats of our own from before that. */
  private attachedAt = Number.NEGATIVE_INFINITY
  /** How far the wall clock is ahead of the monotonic one. */
  private skew: number
  /** When the process was found to have been suspended. */
  private suspendedAt = Number.NEGATIVE_INFINITY
  /** How long a connection may be in the making; half as long again with each that is not made. */
  private patience: number
  /** What waits for the next heartbeat. */
  private confirming: Array<Answered> = []
  private readonly beat = Timers.timer(() => {
    if (this.client.isConnected) this.heartbeat()
  })
  private readonly expiry = Timers.timer(() => this.lose("expired"))
  private readonly connectLimit = Timers.timer(() => {
    if (this.client.isConnected) return
    this.patience = Math.min(1.5 * this.patience, this.settings.commandTimeout)
    this.client.cut()
  })

  constructor(settings: Settings, timers: Timers.Timers, clock: Clock.Clock) {
    this.settings = settings
    this.timers = timers
    this.clock = clock
    this.ttl = settings.sessionTimeout
    this.validFrom = timers.now() - this.ttl
    this.skew = this.readSkew()
    this.patience = this.shortestPatience
    this.events = {
      onConnecting: () => timers.set(this.connectLimit, timers.now() + this.patience),
      onConnected: () => this.onConnected(),
      onEnded: (reason) => this.onEnded(reason)
    }
    this.opened = settings.open(this.events, timers.now)
    if (this.client.isConnected) this.onConnected()
  }

  /** The client of now: another one after the session ended. */
  get client(): Client {
    return this.opened.client
  }

  /** How long holds are good, or `undefined` when the latest heartbeat is too long ago to say. */
  get validity(): Validity | undefined {
    const { timers, ttl, validFrom } = this
    return timers.now() - validFrom < 0.625 * ttl ? { validFrom, ttl } : undefined
  }

  /** Ends the session, unless its client was given. */
  get close(): Effect.Effect<void> {
    return Effect.suspend(() => this.opened.close)
  }

  /** Looks after the connection, again and again. */
  get keep(): Effect.Effect<never> {
    const pause = Effect.suspend(() => Effect.sleep(this.longestSilence / 4))
    return Effect.forever(Effect.andThen(pause, Effect.suspend(() => this.look())))
  }

  /** Sends a heartbeat, on a new connection if that is needed for an answer that is younger than `askedAt`. */
  confirm(askedAt: number, onEnd: Answered): void {
    this.lookAtClocks()
    if (askedAt < this.suspendedAt + news && this.validFrom < askedAt) this.client.cut()
    // Requests that ask at the same time share one.
    if (this.confirming.push(onEnd) > 1) return
    queueMicrotask(() => {
      const { confirming } = this
      this.confirming = []
      this.heartbeat((answered) => {
        for (const end of confirming) end(answered)
      })
    })
  }

  /** The larger of two readings: time that passes between the clocks makes one too small, and the next one a leap. */
  private readSkew(): number {
    const read = () => this.clock.currentTimeMillisUnsafe() - this.timers.now()
    return Math.max(read(), read())
  }

  private lookAtClocks(): void {
    const skew = this.readSkew()
    if (skew > this.skew + noise) this.suspendedAt = this.timers.now()
    this.skew = skew
  }

  private get quarter(): number {
    return this.ttl / 4
  }

  /** How long a connection may keep silent: a hold has time left then to survive on another one. */
  private get longestSilence(): number {
    return Math.min(this.settings.commandTimeout, this.quarter)
  }

  /** Three addresses may be tried within the command timeout, and a busy server has time to make a session. */
  private get shortestPatience(): number {
    return Math.min(this.settings.commandTimeout / 4, this.quarter)
  }

  private changed(): void {
    const all = [...this.onChange]
    this.onChange.clear()
    for (const listener of all) listener()
  }

  private lose(reason: LossReason): void {
    const holders = [...this.holders]
    this.holders.clear()
    for (const holder of holders) holder.onLost(reason)
  }

  private prove(time: number): void {
    if (time <= this.validFrom) return
    this.validFrom = time
    this.timers.set(this.expiry, time + this.ttl)
    this.changed()
  }

  private heartbeat(onEnd: Answered = () => {}): void {
    const { quarter, timers } = this
    const sentAt = timers.now()
    // Until one of ours is old enough, the leader knows of the driver's pings: the driver sends one when it has not heard of
    // the server for a third of the timeout. That is long ago, so holds are good for a short time, and the next comes soon.
    const isEarly = sentAt < this.attachedAt + quarter
    const known = isEarly ? sentAt - 7 * quarter / 3 : Math.min(this.latestHeartbeat, sentAt - quarter)
    if (!isEarly) this.latestHeartbeat = sentAt
    timers.set(this.beat, sentAt + (isEarly ? quarter / 8 : quarter))
    this.client.send([remove(this.settings.nowhere)], (replies) => {
      const answered = replies?.[0]?.code === codes.noNode
      if (answered) this.prove(known)
      onEnd(answered)
    })
  }

  private onConnected(): void {
    const { client, timers } = this
    if (client.sessionId !== this.sessionId) {
      this.sessionId = client.sessionId
      this.epoch += 1
      this.lose("session")
    }
    this.ttl = client.sessionTimeout
    this.patience = this.shortestPatience
    const { connectingSince } = client
    this.latestHeartbeat = connectingSince ?? timers.now()
    if (connectingSince === undefined) {
      this.attachedAt = this.latestHeartbeat
      this.heartbeat()
    } else {
      this.attachedAt = Number.NEGATIVE_INFINITY
      this.prove(connectingSince)
      timers.set(this.beat, connectingSince + this.quarter)
    }
    this.changed()
  }

  private onEnded(reason: "expired" | "unauthorized"): void {
    this.sessionId = 0n
    this.epoch += 1
    this.validFrom = this.timers.now() - this.ttl
    this.lose("session")
    if (reason === "unauthorized") {
      this.problem = (operation) => refused(operation, codes.authFailed, this.settings.servers)
    } else if (this.settings.isGiven) {
      this.problem = (operation) =>
        errors.unreachable(operation, { detail: "the session of the given client has expired" })
    } else {
      this.opened = this.settings.open(this.events, this.timers.now)
    }
    this.changed()
  }

  /**
   * The servers are other ones now, or have lost what this session has seen: they refuse it without a word. (Until
   * then it is worth more than another one, because what was created in it can be removed.)
   */
  private isOver(): boolean {
    const { client, settings } = this
    return !settings.isGiven && !client.isConnected && this.sessionId !== 0n &&
      this.timers.now() > this.validFrom + 3 * this.ttl
  }

  private look(): Effect.Effect<void> {
    const { client, opened, settings } = this
    if (this.problem !== undefined && !settings.isGiven) {
      this.problem = undefined
      this.opened = settings.open(this.events, this.timers.now)
    }
    this.lookAtClocks()
    if (this.timers.now() >= (client.silentSince ?? Number.POSITIVE_INFINITY) + this.longestSilence) client.cut()
    return this.isOver()
      ? Effect.andThen(opened.close, Effect.sync(() => this.onEnded("expired")))
      : Effect.void
  }
}
