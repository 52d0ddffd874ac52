/**
 * What `Lock` does over any `LockBackend`, for all keys of one layer: the background of the layer, its clock, the local
 * lines, and the attempts that are not given back yet. How a key is taken is in `taking.ts`, how it is given back in
 * `givingBack.ts`.
 */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { LockBackend } from "../LockBackend.ts"
import { LockBackendError } from "../LockError.ts"
import { longestGoodbye } from "./call.ts"
import { giveBack } from "./givingBack.ts"
import type { Holding } from "./holding.ts"
import type { Line } from "./line.ts"
import { Telemetry } from "./telemetry.ts"
import { Timer, Watchdog } from "./watchdog.ts"

export class Engine {
  readonly backend: LockBackend["Service"]
  readonly watchdog: Watchdog
  readonly telemetry: Telemetry
  /** The layer is closing: nothing is taken any more. */
  closed = false
  /** The layer is closed: nobody keeps the time any more, so nobody is to wait. */
  gone = false
  readonly lines = new Map<string, Line>()
  /** Every attempt from its first request until it is known that it holds nothing, or is given back. */
  readonly live = new Set<Holding>()
  private readonly context: Context.Context<never>
  private onIdle: (() => void) | undefined

  constructor(backend: LockBackend["Service"], clock: Clock.Clock, context: Context.Context<never>) {
    this.backend = backend
    this.context = context
    this.watchdog = new Watchdog(clock)
    this.telemetry = new Telemetry(backend.name, context)
  }

  /** Runs in the background of the layer, with the context of the layer. */
  runFork<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return Effect.runForkWith(this.context)(effect)
  }

  /**
   * The backend tells its times by the clock of the layer, also where the caller has another one. A verb that throws is
   * a defect like any other.
   */
  asked<A, E>(verb: () => Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.withFiber((fiber) =>
      fiber.getRef(Clock.Clock) === this.watchdog.clock
        ? verb()
        : Effect.provideService(Effect.suspend(verb), Clock.Clock, this.watchdog.clock)
    )
  }

  forget(holding: Holding): void {
    this.live.delete(holding)
    if (this.live.size === 0) this.onIdle?.()
  }

  get closedError(): LockBackendError {
    return new LockBackendError({
      backend: this.backend.name,
      operation: "acquire",
      reason: "Unreachable",
      detail: "the Lock layer is closed"
    })
  }

  /** The machine slept: whether its leases outlived that is asked now. */
  readonly onSlept = (): void => {
    for (const holding of this.live) {
      if (holding.isDoubtful(this.watchdog.now())) holding.startRenewal()
    }
  }

  /** Ends what is asked for and what is held, and waits a little until it is given back. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.closed = true
    for (const line of this.lines.values()) line.failQueued(this.closedError)
    for (const holding of this.live) {
      if (holding.state === "asking") holding.section?.interrupt()
      holding.lose("session")
      if (holding.section === undefined && holding.duty === "owed") this.runFork(giveBack(this, holding))
    }
    const idle = Effect.callback<void>((resume) => {
      this.onIdle = () => resume(Effect.void)
      if (this.live.size === 0) return this.onIdle()
      this.watchdog.set(new Timer(this.onIdle), this.watchdog.now() + longestGoodbye)
    })
    return Effect.map(idle, () => {
      this.gone = true
      this.watchdog.ringAll()
    })
  })
}
