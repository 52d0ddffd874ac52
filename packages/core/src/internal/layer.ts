/**
 * What all locks of one `Lock` layer share: its backend, its clock, its metrics, and the background in which every verb
 * of the backend runs. Callers only wait, so no interruption of a caller leaves a request without a keeper.
 */
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { LockBackend } from "../LockBackend.ts"
import { LockBackendError } from "../LockError.ts"
import { Telemetry } from "./telemetry.ts"
import { Watchdog } from "./watchdog.ts"

/** A request that may hold something on the server. */
export interface Obligation {
  /** The machine was suspended for so many milliseconds. */
  suspended(slept: number, now: number): void
  /** The layer closes: releases what it holds. */
  close(): void
}

export class LockLayer {
  readonly backend: LockBackend["Service"]
  readonly watchdog: Watchdog
  readonly telemetry: Telemetry
  readonly context: Context.Context<never>
  /** In milliseconds. */
  readonly turn: number
  /** Every request from its first verb until it is known that nothing of it is held or queued. */
  readonly obligations = new Set<Obligation>()
  /** The layer is closing: nothing is taken any more. */
  closed = false
  /** The layer is closed: its watchdog has stopped, so nothing may wait. */
  gone = false
  /** Whether a renewal can bring new tokens; known after the first that was asked for them. */
  renewsTokens = true
  private onIdle: (() => void) | undefined

  constructor(backend: LockBackend["Service"], clock: Clock.Clock, context: Context.Context<never>, turn: number) {
    this.backend = backend
    this.context = context
    this.turn = turn
    this.watchdog = new Watchdog(clock)
    this.telemetry = new Telemetry(backend.name, context)
    this.watchdog.onSuspended = (slept, now) => {
      for (const obligation of this.obligations) obligation.suspended(slept, now)
    }
  }

  /** Runs a duty in the background, with the context of the layer. An interruption before its first step would lose it. */
  fork<A, E>(duty: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return Effect.runForkWith(this.context)(duty, { uninterruptible: true })
  }

  forget(obligation: Obligation): void {
    this.obligations.delete(obligation)
    if (this.obligations.size === 0) this.onIdle?.()
  }

  get closedError(): LockBackendError {
    return new LockBackendError({ backend: this.backend.name, operation: "acquire", reason: "Closed" })
  }

  error(operation: string, reason: LockBackendError["reason"], detail: string): LockBackendError {
    return new LockBackendError({ backend: this.backend.name, operation, reason, detail })
  }

  /** Calls back when nothing is held or queued any more. */
  whenIdle(callback: () => void): void {
    this.onIdle = callback
    if (this.obligations.size === 0) callback()
  }
}
