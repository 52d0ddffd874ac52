/**
 * One of several locks that are held together. A fiber of its own stays in the lock's section until the part is ended, so
 * a part is taken, kept, lost and released like the section of `withLock` that it is.
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Lease } from "../Lease.ts"
import { type LockError, LockLost } from "../LockError.ts"
import { type Guarding, run, withLoss } from "./guard.ts"
import type * as leases from "./lease.ts"
import type { Options } from "./options.ts"
import { CurrentSection, nested, type ProgramOf } from "./section.ts"

/** The one verb of `Lock` that everything else is built on. */
export type WithLock = <A, E, R>(
  key: string,
  program: ProgramOf<Lease, A, E, R>,
  options?: Options
) => Effect.Effect<A, E | LockError, Exclude<R, Scope.Scope>>

export class Part {
  readonly key: string
  /** Once it is held, and from then on. */
  lease: Lease | undefined
  section: leases.Lease | undefined
  exit: Exit.Exit<void, LockError> | undefined
  isLost = false
  isEnding = false
  fiber: Fiber.Fiber<void, LockError> | undefined
  /** Lets the section end. */
  leave: (() => void) | undefined
  /** Called at each change until it is told to end: it is held, it is lost, it has ended. */
  onChange: () => void = nothing

  constructor(key: string) {
    this.key = key
  }
}

const nothing = (): void => {}

/** Asks for the lock with the services of the caller. */
export const start = (
  withLock: WithLock,
  key: string,
  options: Options,
  context: Context.Context<never>
): Part => {
  const part = new Part(key)
  const fiber = Effect.runForkWith(context)(withLock(key, (lease) => stay(part, lease), options))
  part.fiber = fiber
  fiber.addObserver((exit) => {
    part.exit = exit
    part.onChange()
  })
  return part
}

const stay = (part: Part, lease: Lease): Effect.Effect<void> =>
  Effect.withFiber((fiber) =>
    Effect.callback((resume) => {
      part.lease = lease
      part.section = fiber.getRef(CurrentSection)
      untilEnding(part, resume)
      // It is interrupted when the lease is lost, and the work ends before the key is free.
      return Effect.callback((resume) => {
        part.isLost = true
        untilEnding(part, resume)
      })
    })
  )

const untilEnding = (part: Part, resume: (end: Effect.Effect<void>) => void): void => {
  part.leave = () => resume(Effect.void)
  if (part.isEnding) part.leave()
  // What waits for it goes on at once, and may end it.
  else queueMicrotask(() => part.onChange())
}

/** Why it is not held, once that is known. */
export const refusalOf = ({ exit, lease }: Part): Exit.Exit<never, LockError> | undefined => {
  if (exit === undefined || lease !== undefined) return undefined
  // Without a lease it ends in an error, or was told to end.
  return Exit.isFailure(exit) ? Exit.failCause(exit.cause) : Exit.interrupt()
}

/** What it failed with: an error, or a defect of the backend. */
export const failureOf = ({ exit }: Part): Cause.Cause<LockError> | undefined =>
  exit !== undefined && Exit.isFailure(exit) ? exit.cause : undefined

/** The error among what it failed with. */
export const errorIn = (failure: Cause.Cause<LockError> | undefined): LockError | undefined =>
  failure === undefined ? undefined : Option.getOrUndefined(Cause.findErrorOption(failure))

/** Releases it, or stops asking for it. It has ended when `ended` answers. */
export const end = (part: Part): void => {
  if (part.isEnding) return
  part.isEnding = true
  part.onChange = nothing
  if (part.lease === undefined) part.fiber?.interruptUnsafe()
  part.leave?.()
}

/** Waits until nothing of them is held, and answers with the losses of those that were lost before their end. */
export const ended = (parts: ReadonlyArray<Part>): Effect.Effect<ReadonlyArray<LockLost | undefined>> =>
  Effect.map(Fiber.awaitAll(parts.flatMap(({ fiber }) => fiber ?? [])), (exits) => exits.map(lossOf))

const lossOf = (exit: Exit.Exit<void, LockError>): LockLost | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  const errors = exit.cause.reasons.filter(Cause.isFailReason).map(({ error }) => error)
  return errors.find((error) => error instanceof LockLost)
}

/** Several parts under one program. */
export class Together implements Guarding {
  readonly parts: Array<Part> = []
  firstLost: Part | undefined
  /** Called at each change of a part. */
  onChange: () => void = nothing
  /** Called when the work has ended, just before the parts end. */
  readonly ending: () => void
  private worker: Fiber.Fiber<unknown, unknown> | undefined

  constructor(ending: () => void = nothing) {
    this.ending = ending
  }

  isHeld(): boolean {
    return this.firstLost === undefined && this.parts.every(({ section }) => section?.isHeld() !== false)
  }

  add(part: Part): Part {
    this.parts.push(part)
    part.onChange = () => {
      this.look(part)
      this.onChange()
    }
    this.look(part)
    return part
  }

  private look(part: Part): void {
    if (!part.isLost || this.firstLost !== undefined) return
    this.firstLost = part
    this.worker?.interruptUnsafe()
  }

  addWorker(fiber: Fiber.Fiber<unknown, unknown>): void {
    this.worker = fiber
    if (this.firstLost !== undefined) fiber.interruptUnsafe()
  }

  removeWorker(): void {
    this.worker = undefined
  }

  /** Ends the parts from `first` on, the last one first. */
  endFrom(first: number): ReadonlyArray<Part> {
    const parts = this.parts.splice(first).toReversed()
    for (const part of parts) end(part)
    return parts
  }
}

/** Ends all, the last one first, and answers with the first loss. */
export const endAll = (together: Together): Effect.Effect<LockLost | undefined> =>
  Effect.suspend(() => {
    const { firstLost } = together
    together.onChange = nothing
    together.ending()
    const parts = together.endFrom(0)
    return Effect.map(ended(parts), (losses) => {
      const first = firstLost === undefined ? undefined : losses[parts.indexOf(firstLost)]
      return first ?? losses.find((loss) => loss !== undefined)
    })
  })

/** Runs work in a scope of its own under all parts, and ends them. Must run uninterruptibly. */
export const runTogether = <A, E, R>(
  together: Together,
  work: Effect.Effect<A, E, R>,
  outer: leases.Lease | undefined,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | LockLost, Exclude<R, Scope.Scope>> => {
  const sections = together.parts.flatMap(({ section }) => section ?? [])
  return run(together, Effect.scoped(work), nested(sections, outer), restore, conclude<A, E>)
}

const conclude = <A, E>(together: Together, exit: Exit.Exit<A, E>): Effect.Effect<A, E | LockLost> =>
  Effect.flatMap(
    endAll(together),
    (loss): Exit.Exit<A, E | LockLost> => loss === undefined ? exit : withLoss(loss, exit)
  )
