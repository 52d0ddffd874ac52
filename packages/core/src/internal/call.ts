/**
 * One call of `withLock` or `acquire`: a caller that waits for an answer, and a fiber that works for it. The fiber
 * outlives the answer where something is still to be given back.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { LockUnavailable } from "../LockError.ts"
import type { Engine } from "./engine.ts"
import type { Holding } from "./holding.ts"
import type { Outcome } from "./telemetry.ts"
import { Alarm } from "./watchdog.ts"

/** How long a caller waits for what it held to be given back. */
export const longestGoodbye = 1000

const outcomeOf = <E>(exit: Exit.Exit<unknown, E>): Exclude<Outcome, "granted"> => {
  if (Exit.isSuccess(exit)) return "held"
  if (Cause.hasInterruptsOnly(exit.cause)) return "interrupted"
  const error = Cause.squash(exit.cause)
  return error instanceof LockUnavailable ? error.reason : "failed"
}

/** A section that a fiber runs in, and those around it. */
export interface Section {
  readonly engine: Engine
  readonly key: string
  readonly holding: Holding | undefined
  outer: Section | undefined
}

export class Call<A, E> extends Alarm implements Section {
  readonly engine: Engine
  readonly key: string
  readonly isSection: boolean
  outer: Section | undefined
  /** The lease, from the very step in which its grant is believed. */
  holding: Holding | undefined
  /** What comes of it when the key is not to be had. */
  readonly unavailable: (error: LockUnavailable) => Exit.Exit<A, E>
  private readonly started: number
  private readonly onAnswer: (exit: Exit.Exit<A, E>) => void
  private fiber: Fiber.Fiber<unknown, unknown> | undefined
  private interrupted = false
  private answered = false
  private watcher: (() => void) | undefined
  /** What the caller is told when giving back takes too long. */
  private result: Exit.Exit<A, E> | undefined

  constructor(
    engine: Engine,
    key: string,
    options: {
      readonly timeout: number
      readonly isSection: boolean
      readonly outer?: Section | undefined
      readonly unavailable: (error: LockUnavailable) => Exit.Exit<A, E>
      readonly onAnswer: (exit: Exit.Exit<A, E>) => void
    }
  ) {
    super()
    this.engine = engine
    this.key = key
    this.isSection = options.isSection
    this.outer = options.outer
    this.unavailable = options.unavailable
    this.onAnswer = options.onAnswer
    this.started = engine.watchdog.now()
    if (options.timeout !== Number.POSITIVE_INFINITY) engine.watchdog.set(this, this.started + options.timeout)
  }

  /** The fiber that works for this call has started; what comes back waits for an interrupted caller. */
  run(fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> | undefined {
    if (this.answered) return undefined
    this.fiber = fiber
    if (this.interrupted) fiber.interruptUnsafe()
    return Effect.suspend(() => {
      this.interrupt()
      return Effect.callback<void>((resume) => {
        if (this.answered) resume(Effect.void)
        else this.watcher = () => resume(Effect.void)
      })
    })
  }

  /** Interrupts the work; what is held is given back. */
  interrupt(): void {
    this.interrupted = true
    this.fiber?.interruptUnsafe()
  }

  /** The grant is believed: the wait is over. A section is interrupted when its lease is lost. */
  granted(holding: Holding, now: number): void {
    this.holding = holding
    if (!this.isSection) holding.section = undefined
    this.engine.watchdog.clear(this)
    this.engine.telemetry.granted(now - this.started)
  }

  /** The work is done, and the caller waits a little for the giving back. */
  returning(result: Exit.Exit<A, E>): void {
    if (this.answered) return
    this.result = result
    if (this.engine.gone) return this.ring()
    this.engine.watchdog.set(this, this.engine.watchdog.now() + longestGoodbye)
  }

  /** Tells the caller; `false`: it has been told something else already. */
  answer(exit: Exit.Exit<A, E>): boolean {
    if (this.answered) return false
    this.answered = true
    this.engine.watchdog.clear(this)
    if (this.holding === undefined) this.engine.telemetry.refused(outcomeOf(exit))
    this.onAnswer(exit)
    this.watcher?.()
    return true
  }

  override ring(): void {
    if (this.result !== undefined) {
      this.answer(this.result)
    } else {
      this.answer(this.unavailable(new LockUnavailable({ key: this.key, reason: "timeout" })))
      this.interrupt()
    }
  }
}
