/**
 * The truth of the memory backend: the holder of each key, and its line. Every verb is one synchronous step, so no
 * two can interleave.
 */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Grant, Inspection, LockRequest, Released, Validity } from "../../LockBackend.ts"
import { LockBackendError } from "../../LockError.ts"

interface Waiter {
  readonly request: LockRequest
  readonly context: Context.Context<never>
  readonly resume: (effect: Effect.Effect<Grant, LockBackendError>) => void
}

/** A held key. A key that is not held has no entry, so a line always stands behind a holder. */
interface Entry {
  readonly key: string
  holder: LockRequest
  /** The first and the last token of the grant. */
  firstToken: bigint
  lastToken: bigint
  validFrom: number
  ttl: number
  /** By owner, in the order of arrival. */
  line: Map<string, Waiter> | undefined
  alarm: { readonly at: number, readonly fiber: Fiber.Fiber<void> } | undefined
}

export interface MemoryStore {
  readonly entries: Map<string, Entry>
  /** Released before they held anything: a late copy of such a request gets nothing. It lives as long as the request. */
  readonly voids: WeakSet<LockRequest>
  lastToken: bigint
  /** Where the sweep of grants that were not released goes on. */
  sweep: Iterator<Entry>
}

export const make = (): MemoryStore => {
  const entries = new Map<string, Entry>()
  return { entries, voids: new WeakSet(), lastToken: 0n, sweep: entries.values() }
}

/** Milliseconds of monotonic time. */
export const nowOf = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

// Resuming runs the waiter at once. It yields first, so that it does not come back into the store in the middle of a
// step, and a long line of short sections does not nest.
const later = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> => Effect.andThen(Effect.yieldNow, effect)

const withdrawn = later(
  Effect.fail(
    new LockBackendError({
      backend: "memory",
      operation: "acquire",
      reason: "Rejected",
      detail: "this request was released"
    })
  )
)

const endOf = (entry: Entry): number => entry.validFrom + entry.ttl

const grantOf = (entry: Entry): Grant => ({
  validFrom: entry.validFrom,
  ttl: entry.ttl,
  tokens: { first: entry.firstToken, spare: Number(entry.lastToken - entry.firstToken) }
})

const headOf = (entry: Entry): Waiter | undefined => entry.line?.values().next().value

/** Gives the holder of an entry its next tokens: one, and as many more as it would like. */
const giveTokens = (store: MemoryStore, entry: Entry, spare: number): void => {
  entry.firstToken = store.lastToken + 1n
  entry.lastToken = spare === 0 ? entry.firstToken : entry.firstToken + BigInt(spare)
  store.lastToken = entry.lastToken
}

const ring = (store: MemoryStore, entry: Entry): Effect.Effect<void> =>
  Effect.clockWith((clock) =>
    Effect.map(clock.sleep(Duration.millis(endOf(entry) - nowOf(clock))), () => {
      const now = nowOf(clock)
      entry.alarm = undefined
      if (endOf(entry) <= now) lose(store, entry, now)
      else setAlarm(store, entry)
    })
  )

/** A timer for the end of the grant while, and only while, a request waits. A renewal leaves it to ring too early. */
const setAlarm = (store: MemoryStore, entry: Entry): void => {
  const head = headOf(entry)
  const end = endOf(entry)
  if (head !== undefined && entry.alarm !== undefined && entry.alarm.at <= end) return
  entry.alarm?.fiber.interruptUnsafe()
  entry.alarm = head && { at: end, fiber: Effect.runForkWith(head.context)(ring(store, entry)) }
}

const leaveLine = (store: MemoryStore, entry: Entry, waiter: Waiter): void => {
  entry.line?.delete(waiter.request.owner)
  setAlarm(store, entry)
}

/** Hands the key over to the next in line, or forgets it. */
const handOver = (store: MemoryStore, entry: Entry, now: number): void => {
  const next = headOf(entry)
  if (next === undefined) {
    store.entries.delete(entry.key)
    return
  }
  entry.holder = next.request
  entry.validFrom = now
  entry.ttl = next.request.ttl
  giveTokens(store, entry, next.request.spare)
  leaveLine(store, entry, next)
  if (headOf(entry) !== undefined) next.request.onWanted()
  next.resume(later(Effect.succeed(grantOf(entry))))
}

/** Ends the grant without its holder, which is told last: being told may come back into the store. */
const lose = (store: MemoryStore, entry: Entry, now: number): void => {
  const loser = entry.holder
  handOver(store, entry, now)
  loser.onLost("taken")
}

/** The entry as it is now: a grant whose time is over has ended. */
const find = (store: MemoryStore, key: string, now: number): Entry | undefined => {
  const entry = store.entries.get(key)
  if (entry === undefined || now < endOf(entry)) return entry
  lose(store, entry, now)
  return store.entries.get(key)
}

/** Looks at two entries for each new one, so that keys whose grants were not released do not pile up. */
const sweepSome = (store: MemoryStore, now: number): void => {
  for (let i = 0; i < 2; i++) {
    const { done, value } = store.sweep.next()
    if (done) {
      store.sweep = store.entries.values()
      return
    }
    if (headOf(value) === undefined && endOf(value) <= now) lose(store, value, now)
  }
}

export const tryAcquire = (store: MemoryStore, request: LockRequest, now: number): Grant | undefined => {
  if (store.voids.has(request)) return undefined
  const entry = find(store, request.key, now)
  if (entry !== undefined) {
    if (entry.holder.owner !== request.owner) {
      request.onHeld?.(entry.holder.owner)
      return undefined
    }
    entry.validFrom = now
    return grantOf(entry)
  }
  const created: Entry = {
    key: request.key,
    holder: request,
    firstToken: 0n,
    lastToken: 0n,
    validFrom: now,
    ttl: request.ttl,
    line: undefined,
    alarm: undefined
  }
  giveTokens(store, created, request.spare)
  store.entries.set(request.key, created)
  sweepSome(store, now)
  return grantOf(created)
}

/** The decision to wait and the place in line are one step: a fiber may be made to yield between any two. */
export const acquire = (store: MemoryStore, request: LockRequest): Effect.Effect<Grant, LockBackendError> =>
  Effect.withFiber((fiber) => {
    const granted = tryAcquire(store, request, nowOf(fiber.getRef(Clock.Clock)))
    if (granted !== undefined) return Effect.succeed(granted)
    return Effect.callback<Grant, LockBackendError>((resume) => {
      const grant = tryAcquire(store, request, nowOf(fiber.getRef(Clock.Clock)))
      if (grant !== undefined) return resume(Effect.succeed(grant))
      const entry = store.entries.get(request.key)
      if (entry === undefined || store.voids.has(request)) return resume(withdrawn)
      const waiter: Waiter = { request, context: fiber.context, resume }
      entry.line ??= new Map()
      entry.line.set(request.owner, waiter)
      setAlarm(store, entry)
      entry.holder.onWanted()
      return Effect.sync(() => {
        if (entry.line?.get(request.owner) === waiter) leaveLine(store, entry, waiter)
      })
    })
  })

export const renew = (
  store: MemoryStore,
  request: LockRequest,
  spare: number | undefined,
  now: number
): Validity | undefined => {
  const entry = find(store, request.key, now)
  if (entry?.holder.owner !== request.owner) return undefined
  entry.validFrom = now
  entry.ttl = request.ttl
  if (spare === undefined) return { validFrom: now, ttl: entry.ttl }
  giveTokens(store, entry, spare)
  return grantOf(entry)
}

export const release = (store: MemoryStore, request: LockRequest, now: number): Released => {
  const entry = find(store, request.key, now)
  if (entry?.holder.owner === request.owner) {
    handOver(store, entry, now)
    return "released"
  }
  store.voids.add(request)
  const waiter = entry?.line?.get(request.owner)
  if (entry !== undefined && waiter !== undefined) {
    leaveLine(store, entry, waiter)
    waiter.resume(withdrawn)
  }
  return "gone"
}

export const inspect = (store: MemoryStore, key: string, now: number): Inspection => {
  const entry = find(store, key, now)
  return entry === undefined
    ? { holder: Option.none(), waiting: [] }
    : {
      holder: Option.some({ owner: entry.holder.owner, token: entry.lastToken, remaining: endOf(entry) - now }),
      waiting: [...entry.line?.keys() ?? []]
    }
}

export const revoke = (store: MemoryStore, key: string, owner: string, now: number): boolean => {
  const entry = find(store, key, now)
  if (entry?.holder.owner !== owner) return false
  lose(store, entry, now)
  return true
}
