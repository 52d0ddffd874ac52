/**
 * The local line: those that wait for one key in this process, first come, first served. Only one request of the process
 * stands in the server's line. What it is granted serves the local line for a turn: a hold passes from one lease to the
 * next without asking the backend.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { Grant } from "../LockBackend.ts"
import { type LockBackendError, LockUnavailable } from "../LockError.ts"
import { begin, Hold, isIdle, isKept, type Keeper, schedule, unanswered, type Upkeep } from "./hold.ts"
import type { LockLayer } from "./layer.ts"
import { end, Lease, type Taker } from "./lease.ts"
import { type Plan, sameRequest } from "./options.ts"
import { awaitRelease, released, startRelease, withdraw } from "./release.ts"
import { confirmGrant, startRenewal, upkeep } from "./renewal.ts"
import { debug } from "./telemetry.ts"
import * as uuid from "./uuid.ts"
import { type Alarm, Timer } from "./watchdog.ts"

/** How many more tokens a process with a line would like. */
const spareTokens = 63
/** After so many grants that were over on arrival the next is asked for with a pause, and in the end not at all. */
const lateAtOnce = 2
const lateAtMost = 8
const firstLatePause = 100
const longestLatePause = 5000

export type TakeError = LockUnavailable | LockBackendError

/** How a lease is asked for. */
export interface Ask {
  readonly key: string
  readonly plan: Plan
  /** Whether it waits in line, or is refused when the key is not free now. */
  readonly waits: boolean
  /** Which fiber takes it into which scope; a section has none. */
  readonly taker: Taker | undefined
  /** The end of the wait, in milliseconds of monotonic time. */
  readonly until: number
}

/** One caller that wants a lease. */
class Waiter implements Alarm {
  due = 0
  slot = -1
  slack = 0
  readonly ask: Ask
  readonly line: Line
  readonly since: number
  exit: Exit.Exit<Lease, TakeError> | undefined
  resume: ((exit: Exit.Exit<Lease, TakeError>) => void) | undefined

  constructor(line: Line, ask: Ask, now: number) {
    this.line = line
    this.ask = ask
    this.since = now
  }

  ring(): void {
    const holder = holderOf(this.line)
    leaveLine(this.line, this)
    refuse(this, "timeout", holder)
  }
}

/** The line of one key. */
class Line implements Keeper {
  readonly lines: Lines
  readonly key: string
  /** In the order of arrival; a `Set` forgets a waiter that leaves from the middle in constant time. */
  waiters: Set<Waiter> | undefined
  /** What is asked for or held, until the key may be asked for again. */
  hold: Hold | undefined
  /** How many grants in a row were over on arrival, and the pause before the next is asked for. */
  late = 0
  pause: Timer | undefined

  constructor(lines: Lines, key: string) {
    this.lines = lines
    this.key = key
  }

  get layer(): LockLayer {
    return this.lines.layer
  }

  get upkeep(): Upkeep {
    return upkeep
  }

  next(hold: Hold, fetched = false): void {
    next(this, hold, fetched)
  }

  freed(hold: Hold): void {
    if (this.hold !== hold) return
    // The release is sent in this very step, and the next request right behind it.
    if (lengthOf(this) > 0) queueMicrotask(() => free(this, hold))
    else free(this, hold)
  }
}

/** The lines of all keys that are wanted or held in this process. */
export class Lines {
  readonly layer: LockLayer
  readonly byKey = new Map<string, Line>()

  constructor(layer: LockLayer) {
    this.layer = layer
  }
}

const headOf = (line: Line): Waiter | undefined => line.waiters?.values().next().value

const lengthOf = (line: Line): number => line.waiters?.size ?? 0

// ---------------------------------------------------------------------------------------------------------------------
// Entering and leaving
// ---------------------------------------------------------------------------------------------------------------------

/** What works under the key in this process. */
export const leaseOf = (lines: Lines, key: string): Lease | undefined => {
  const tenant = lines.byKey.get(key)?.hold?.tenant
  return tenant instanceof Lease ? tenant : undefined
}

/**
 * Takes a lease. To enter and to be refused, served or queued is one step, because Effect may yield between any two. Must
 * run uninterruptibly; only the wait, which `restore` makes interruptible, can be interrupted.
 */
export const take = (
  lines: Lines,
  ask: Ask,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
): Effect.Effect<Lease, TakeError> => {
  const waiter = enter(lines, ask)
  if (waiter.exit !== undefined) return waiter.exit
  const settled = Effect.callback<Lease, TakeError>((resume) => {
    if (waiter.exit !== undefined) resume(waiter.exit)
    else waiter.resume = resume
  })
  return Effect.matchCauseEffect(restore(settled), {
    onSuccess: Effect.succeed,
    onFailure: (cause) =>
      waiter.exit !== undefined && Exit.isFailure(waiter.exit)
        ? Effect.failCause(cause)
        : Effect.andThen(abandon(waiter), Effect.failCause(cause))
  })
}

/** The caller was interrupted, perhaps when it had been served already. */
const abandon = (waiter: Waiter): Effect.Effect<unknown> => {
  if (waiter.exit !== undefined) {
    return Exit.isSuccess(waiter.exit)
      ? end(waiter.exit.value, { byHand: true })
      : Effect.void
  }
  waiter.line.layer.telemetry.refused("interrupted")
  waiter.exit = Exit.interrupt()
  const withdrawn = leaveLine(waiter.line, waiter)
  return withdrawn === undefined ? Effect.void : awaitRelease(withdrawn)
}

const enter = (lines: Lines, ask: Ask): Waiter => {
  const { layer } = lines
  const now = layer.watchdog.look()
  let line = lines.byKey.get(ask.key)
  if (line === undefined) {
    line = new Line(lines, ask.key)
    lines.byKey.set(ask.key, line)
  }
  const waiter = new Waiter(line, ask, now)
  if (layer.closed) {
    fail(waiter, Exit.fail(layer.closedError), "failed")
    removeIfIdle(line)
    return waiter
  }
  const isFree = lengthOf(line) === 0 && line.pause === undefined &&
    (line.hold === undefined || line.hold.lingers)
  if (!isFree && !ask.waits) {
    refuse(waiter, "held")
    return waiter
  }
  line.waiters ??= new Set()
  line.waiters.add(waiter)
  if (ask.until !== Number.POSITIVE_INFINITY) layer.watchdog.set(waiter, ask.until)
  const { hold } = line
  if (hold === undefined) {
    // After late grants the key is asked for when the pause is over.
    if (line.pause === undefined) askAgain(line)
  } else if (isIdle(hold)) next(line, hold)
  else hold.request.spare = spareTokens
  return waiter
}

/**
 * Leaves the line, from any place. A request in the server's line stays for the next waiter that would make the same; what comes
 * back is a request that no waiter wants any more.
 */
const leaveLine = (line: Line, waiter: Waiter): Hold | undefined => {
  const wasHead = headOf(line) === waiter
  line.waiters?.delete(waiter)
  line.layer.watchdog.clear(waiter)
  const { hold } = line
  if (!wasHead || hold?.state !== "asking") {
    removeIfIdle(line)
    return undefined
  }
  const heir = headOf(line)
  if (waiter.ask.waits && heir?.ask.waits && sameRequest(hold.plan, heir.ask.plan)) return undefined
  withdraw(hold)
  return hold
}

const removeIfIdle = (line: Line): void => {
  if (lengthOf(line) > 0 || line.hold !== undefined) return
  if (line.pause !== undefined) line.layer.watchdog.clear(line.pause)
  line.pause = undefined
  if (line.lines.byKey.get(line.key) === line) line.lines.byKey.delete(line.key)
}

const settle = (waiter: Waiter, exit: Exit.Exit<Lease, TakeError>): void => {
  if (waiter.exit !== undefined) return
  waiter.exit = exit
  const { line } = waiter
  line.waiters?.delete(waiter)
  if (line.waiters?.size === 0) line.waiters = undefined
  line.layer.watchdog.clear(waiter)
  const { resume } = waiter
  // The one that makes room goes on first, and a long line of short sections does not nest.
  if (resume !== undefined) queueMicrotask(() => resume(exit))
}

const fail = (waiter: Waiter, exit: Exit.Exit<never, TakeError>, outcome: "held" | "timeout" | "failed"): void => {
  if (waiter.exit !== undefined) return
  waiter.line.layer.telemetry.refused(outcome)
  settle(waiter, exit)
}

/** The label of the holder of the key, as far as it is known. */
const holderOf = ({ hold }: Line): string | undefined => {
  const owner = hold?.tenant === undefined ? hold?.heldBy : hold.request.owner
  return owner?.slice(0, owner.lastIndexOf("/"))
}

const refuse = (waiter: Waiter, reason: "held" | "timeout", holder = holderOf(waiter.line)): void => {
  const { key } = waiter.line
  const error = new LockUnavailable({ key, reason, ...holder !== undefined && { holder } })
  fail(waiter, Exit.fail(error), reason)
}

/** Everyone in line gets the same error: the layer is closed, or the backend is out of reach. */
const failAll = (line: Line, error: LockBackendError): void => {
  for (const waiter of Array.from(line.waiters ?? [])) fail(waiter, Exit.fail(error), "failed")
}

// ---------------------------------------------------------------------------------------------------------------------
// Asking the backend
// ---------------------------------------------------------------------------------------------------------------------

/** Asks for the head of the line. */
const askAgain = (line: Line): void => {
  const head = headOf(line)
  if (head === undefined) return removeIfIdle(line)
  const { layer } = line
  const { plan, waits } = head.ask
  const spare = lengthOf(line) > 1 || plan.linger > 0 || plan.shared ? spareTokens : 0
  const hold = new Hold(layer, line, line.key, `${plan.label}/${uuid.make()}`, plan, spare)
  line.hold = hold
  const verb = waits
    ? Effect.suspend(() => Effect.asSome(layer.backend.acquire(hold.request)))
    : Effect.suspend(() => layer.backend.tryAcquire(hold.request))
  const asked = Effect.flatMap(
    verb,
    Option.match({
      onNone: () => Effect.succeed("refused" as const),
      onSome: (grant: Grant) =>
        Effect.map(confirmGrant(hold, grant), (good) => good ? "granted" as const : "late" as const)
    })
  )
  const asker = layer.fork(Effect.matchCauseEffect(Effect.interruptible(asked), {
    onFailure: (cause) => Effect.sync(() => askFailed(line, hold, cause)),
    onSuccess: (answer) => {
      if (answer === "refused") return Effect.sync(() => refused(line, hold))
      if (answer === "late" && !hold.withdrawn) return late(line, hold)
      granted(line, hold)
      return debug(() => `Lock "${line.key}" is held by ${hold.request.owner}`, Effect.void)
    }
  }))
  if (asker.pollUnsafe() === undefined) hold.asker = asker
  // The last waiter that wanted it may have left in the meantime.
  if (hold.withdrawn) asker.interruptUnsafe()
}

const granted = (line: Line, hold: Hold): void => {
  if (hold.withdrawn || line.layer.closed) {
    startRelease(hold)
    return
  }
  line.late = 0
  begin(hold, line.layer.watchdog.now())
  next(line, hold)
}

/** Another owner holds the key, or stands in line for it. */
const refused = (line: Line, hold: Hold): void => {
  const head = headOf(line)
  if (head !== undefined && !head.ask.waits && !hold.withdrawn) refuse(head, "held")
  released(hold)
}

/** Its outcome is unknown, so it is released. */
const askFailed = (line: Line, hold: Hold, cause: Cause.Cause<LockBackendError>): void => {
  const { layer } = line
  const head = headOf(line)
  if (!hold.withdrawn && head !== undefined) {
    const error = Cause.findErrorOption(cause)
    const isOutage = Option.isSome(error) && (error.value.reason === "Unreachable" || error.value.reason === "Timeout")
    if (isOutage) failAll(line, error.value)
    else fail(head, Exit.failCause(cause), "failed")
  }
  unanswered(hold, layer.watchdog.now())
  startRelease(hold)
}

/** A grant that was over when it arrived. It is asked for again, at once and then with pauses, but not without end. */
const late = (line: Line, hold: Hold): Effect.Effect<void> => {
  const { layer } = line
  const head = headOf(line)
  const took = Math.round(layer.watchdog.now() - hold.validFrom)
  line.late++
  if (head !== undefined && !head.ask.waits) refuse(head, "held")
  if (line.late >= lateAtMost) {
    line.late = 0
    const detail =
      `${lateAtMost} grants in a row were over on arrival: the ttl is ${hold.plan.ttl} ms, and the last answer` +
      ` took ${took} ms`
    if (head !== undefined) fail(head, Exit.fail(layer.error("acquire", "Timeout", detail)), "failed")
  }
  if (line.late <= lateAtOnce) {
    startRelease(hold)
    return Effect.void
  }
  const wait = Math.min(firstLatePause * 2 ** (line.late - lateAtOnce - 1), longestLatePause)
  const pause = new Timer(() => {
    line.pause = undefined
    if (line.hold === undefined) askAgain(line)
  })
  line.pause = pause
  layer.watchdog.set(pause, layer.watchdog.now() + wait)
  startRelease(hold)
  return Effect.ignoreCause(Effect.logWarning(
    `Lock "${line.key}" was granted too late: the ttl is ${hold.plan.ttl} ms, and the answer took ${took} ms`
  ))
}

// ---------------------------------------------------------------------------------------------------------------------
// Passing
// ---------------------------------------------------------------------------------------------------------------------

/** The hold is not in use: it serves the head of the line, is kept, or is released. */
const next = (line: Line, hold: Hold, fetched = false): void => {
  if (!isIdle(hold)) return
  const now = line.layer.watchdog.now()
  const head = headOf(line)
  if (line.layer.closed) return startRelease(hold)
  // The answer to the fetch decides.
  if (hold.fetches) return
  if (isKept(hold, now)) return schedule(hold, now)
  if (head !== undefined) {
    if (hold.served && !mayPass(line, hold, head, now, fetched)) return startRelease(hold)
    if (hold.tokensLeft > 0) return serve(line, hold, head, now)
    return fetchTokens(line, hold)
  }
  linger(line, hold, now)
}

/** Whether the next lease may work under the hold of the last. */
const mayPass = (line: Line, hold: Hold, head: Waiter, now: number, fetched: boolean): boolean => {
  const { plan } = head.ask
  const inTurn = fetched || now - hold.since < line.layer.turn
  const lingers = hold.lingers && line.layer.backend.tellsWanted && !hold.wanted
  return (inTurn || lingers) &&
    hold.certain &&
    hold.deadline - now >= hold.ttl / 3 &&
    plan.renewEvery !== Number.POSITIVE_INFINITY &&
    (now - hold.since) * 2 <= plan.maxHold &&
    sameRequest(hold.plan, plan)
}

/** To begin the lease and to serve its waiter is one step. */
const serve = (line: Line, hold: Hold, waiter: Waiter, now: number): void => {
  const { telemetry } = line.layer
  const { plan, taker } = waiter.ask
  if (hold.served) telemetry.passed()
  hold.served = true
  hold.lingers = false
  hold.keptUntil = 0
  telemetry.granted(now - waiter.since)
  settle(waiter, Exit.succeed(new Lease(hold, plan, taker, now)))
  schedule(hold, now)
}

/** The next lease needs a token of its own: one request, where a release and a new one would be two. */
const fetchTokens = (line: Line, hold: Hold): void => {
  if (!line.layer.renewsTokens || hold.renewal !== undefined) return startRelease(hold)
  hold.fetches = true
  startRenewal(hold, { spare: spareTokens })
}

/** No fiber waits: the process keeps the key for a while, if it was asked to. */
const linger = (line: Line, hold: Hold, now: number): void => {
  const { backend, turn } = line.layer
  if (hold.lingerFor <= 0 || !hold.certain) return startRelease(hold)
  if (!hold.lingers) {
    hold.lingers = true
    hold.keptUntil = Math.min(now + hold.lingerFor, backend.tellsWanted ? Number.POSITIVE_INFINITY : hold.since + turn)
  }
  if (now >= hold.keptUntil || (backend.tellsWanted && hold.wanted)) return startRelease(hold)
  schedule(hold, now)
}

/** The key may be asked for again. */
const free = (line: Line, hold: Hold): void => {
  if (line.hold !== hold) return
  line.hold = undefined
  if (line.pause === undefined) askAgain(line)
}

// ---------------------------------------------------------------------------------------------------------------------
// Closing
// ---------------------------------------------------------------------------------------------------------------------

/** Ends what is asked for and what is held, and waits a little until it is released. */
export const close = (lines: Lines, longest: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { layer } = lines
    layer.closed = true
    for (const line of lines.byKey.values()) failAll(line, layer.closedError)
    for (const obligation of layer.obligations) obligation.close()
    const idle = Effect.callback<void>((resume) => {
      const timer = new Timer(() => resume(Effect.void))
      layer.watchdog.set(timer, layer.watchdog.now() + longest)
      layer.whenIdle(() => {
        layer.watchdog.clear(timer)
        resume(Effect.void)
      })
    })
    return Effect.map(idle, () => {
      layer.gone = true
      layer.watchdog.ringAll()
    })
  })
