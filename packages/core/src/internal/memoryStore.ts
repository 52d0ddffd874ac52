import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { Grant, LockRequest } from "../LockBackend.ts"
import { LockBackendError } from "../LockError.ts"

type Resume = (effect: Effect.Effect<Grant, LockBackendError>) => void

/** A place in line. An attempt that asks twice has one place and two to resume. */
interface Waiter {
  readonly request: LockRequest
  readonly resumes: Set<Resume>
  readonly context: Context.Context<never>
}

/** A held key. A key that nobody holds has no entry, so a line always stands behind a holder. */
interface Entry {
  readonly key: string
  holder: LockRequest
  fencingToken: bigint
  validFrom: bigint
  end: bigint
  /** By owner, in the order of arrival. */
  line: Map<string, Waiter> | undefined
  alarm: { readonly at: bigint, readonly fiber: Fiber.Fiber<void> } | undefined
}

/**
 * The truth of the memory backend. Every verb is one synchronous step, so no two can interleave; it runs for the
 * calling fiber, whose clock it reads.
 */
export interface MemoryStore {
  readonly tryAcquire: (request: LockRequest, clock: Clock.Clock) => Grant | undefined
  readonly acquire: (request: LockRequest, fiber: Fiber.Fiber<unknown, unknown>) => Effect.Effect<
    Grant,
    LockBackendError
  >
  readonly renew: (request: LockRequest, clock: Clock.Clock) => Grant | undefined
  readonly release: (request: LockRequest, clock: Clock.Clock) => boolean
  readonly revoke: (key: string, clock: Clock.Clock) => boolean
  /** How many keys it keeps state of. */
  readonly size: () => number
}

// Resuming runs the waiter at once. It yields first, so that it does not come back into the store in the middle of a
// step, and a long line of short sections does not nest.
const later = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> => Effect.andThen(Effect.yieldNow, effect)

const givenBack = later(
  Effect.fail(
    new LockBackendError({
      backend: "memory",
      operation: "acquire",
      reason: "Rejected",
      detail: "this attempt was given back"
    })
  )
)

const grantOf = (entry: Entry): Grant => ({
  validFrom: entry.validFrom,
  ttl: entry.holder.ttl,
  fencingToken: entry.fencingToken
})

const extend = (entry: Entry, now: bigint): void => {
  entry.validFrom = now
  entry.end = now + Duration.toNanosUnsafe(entry.holder.ttl)
}

const headOf = (entry: Entry): Waiter | undefined => entry.line?.values().next().value

export const make = (): MemoryStore => {
  const entries = new Map<string, Entry>()
  // Attempts given back before they held anything. The same request object comes with every verb of an attempt, so
  // the mark lives as long as somebody could still send that attempt, and no longer.
  const voids = new WeakSet<LockRequest>()
  let lastToken = 0n
  let sweep = entries.values()

  const ring = (entry: Entry): Effect.Effect<void> =>
    Effect.clockWith((clock) =>
      Effect.map(clock.sleep(Duration.nanos(entry.end - clock.monotonicTimeNanosUnsafe())), () => {
        const now = clock.monotonicTimeNanosUnsafe()
        entry.alarm = undefined
        if (entry.end <= now) lose(entry, now)
        else setAlarm(entry)
      })
    )

  /** A timer for the end of the lease while, and only while, somebody waits. A renewal leaves it to ring too early. */
  const setAlarm = (entry: Entry): void => {
    const head = headOf(entry)
    if (head !== undefined && entry.alarm !== undefined && entry.alarm.at <= entry.end) return
    entry.alarm?.fiber.interruptUnsafe()
    entry.alarm = head && { at: entry.end, fiber: Effect.runForkWith(head.context)(ring(entry)) }
  }

  const leaveLine = (entry: Entry, waiter: Waiter): void => {
    entry.line?.delete(waiter.request.owner)
    setAlarm(entry)
  }

  /** Gives the key to the next in line, or forgets it. */
  const pass = (entry: Entry, now: bigint): void => {
    const next = headOf(entry)
    if (next === undefined) {
      entries.delete(entry.key)
      return
    }
    entry.holder = next.request
    entry.fencingToken = ++lastToken
    extend(entry, now)
    leaveLine(entry, next)
    const granted = later(Effect.succeed(grantOf(entry)))
    for (const resume of next.resumes) resume(granted)
  }

  /** Ends the lease without its holder, who is told last: being told may come back into the store. */
  const lose = (entry: Entry, now: bigint): void => {
    const loser = entry.holder
    pass(entry, now)
    loser.onLost("taken")
  }

  /** The entry as it is now: a lease whose time is over has ended. */
  const find = (key: string, now: bigint): Entry | undefined => {
    const entry = entries.get(key)
    if (entry === undefined || now < entry.end) return entry
    lose(entry, now)
    return entries.get(key)
  }

  /** Looks at two entries for each new one, so that keys whose leases nobody ended do not pile up. */
  const sweepSome = (now: bigint): void => {
    for (let i = 0; i < 2; i++) {
      const { done, value } = sweep.next()
      if (done) {
        sweep = entries.values()
        return
      }
      if (headOf(value) === undefined && value.end <= now) lose(value, now)
    }
  }

  const tryAcquire = (request: LockRequest, clock: Clock.Clock): Grant | undefined => {
    if (voids.has(request)) return undefined
    const now = clock.monotonicTimeNanosUnsafe()
    const entry = find(request.key, now)
    if (entry !== undefined) {
      if (entry.holder.owner !== request.owner) return undefined
      extend(entry, now)
      return grantOf(entry)
    }
    const created: Entry = {
      key: request.key,
      holder: request,
      fencingToken: ++lastToken,
      validFrom: now,
      end: now + Duration.toNanosUnsafe(request.ttl),
      line: undefined,
      alarm: undefined
    }
    entries.set(request.key, created)
    const grant = grantOf(created)
    sweepSome(now)
    return grant
  }

  /** Decides to wait and takes the place in one step: a fiber may be made to yield between any two. */
  const wait = (request: LockRequest, fiber: Fiber.Fiber<unknown, unknown>) =>
    Effect.callback<Grant, LockBackendError>((resume) => {
      const grant = tryAcquire(request, fiber.getRef(Clock.Clock))
      if (grant !== undefined) return resume(Effect.succeed(grant))
      const entry = entries.get(request.key)
      if (entry === undefined || voids.has(request)) return resume(givenBack)
      entry.line ??= new Map()
      let waiter = entry.line.get(request.owner)
      if (waiter === undefined) {
        waiter = { request, resumes: new Set(), context: fiber.context }
        entry.line.set(request.owner, waiter)
        setAlarm(entry)
      }
      waiter.resumes.add(resume)
      return Effect.sync(() => {
        waiter.resumes.delete(resume)
        if (waiter.resumes.size === 0 && entry.line?.get(request.owner) === waiter) leaveLine(entry, waiter)
      })
    })

  return {
    tryAcquire,
    acquire: (request, fiber) => {
      const grant = tryAcquire(request, fiber.getRef(Clock.Clock))
      return grant === undefined ? wait(request, fiber) : Effect.succeed(grant)
    },
    renew: (request, clock) => {
      const now = clock.monotonicTimeNanosUnsafe()
      const entry = find(request.key, now)
      if (entry?.holder.owner !== request.owner) return undefined
      extend(entry, now)
      return grantOf(entry)
    },
    release: (request, clock) => {
      const now = clock.monotonicTimeNanosUnsafe()
      const entry = find(request.key, now)
      if (entry?.holder.owner === request.owner) {
        pass(entry, now)
        return true
      }
      voids.add(request)
      const waiter = entry?.line?.get(request.owner)
      if (entry !== undefined && waiter !== undefined) {
        leaveLine(entry, waiter)
        for (const resume of waiter.resumes) resume(givenBack)
      }
      return false
    },
    revoke: (key, clock) => {
      const now = clock.monotonicTimeNanosUnsafe()
      const entry = find(key, now)
      if (entry === undefined) return false
      lose(entry, now)
      return true
    },
    size: () => entries.size
  }
}
