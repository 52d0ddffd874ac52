/**
 * A ticket sale: the number of tickets left is shared, and selling one is a read-modify-write. Without a lock, two
 * clerks read the same number and sell the same ticket.
 */
import { withLock } from "@dlock/core"
import type { Lock, LockError } from "@dlock/core"
import { Clock, Effect, FileSystem, Random, Ref } from "effect"
import type { PlatformError } from "effect"

/** Where the number of tickets left is kept: it can be read and written, and no more. */
export interface Tickets<E = never> {
  readonly left: Effect.Effect<number, E>
  readonly setLeft: (left: number) => Effect.Effect<void, E>
}

/** In memory, for clerks of one process. */
export const inMemory = (total: number): Effect.Effect<Tickets> =>
  Effect.map(Ref.make(total), (ref) => ({ left: Ref.get(ref), setLeft: (left) => Ref.set(ref, left) }))

/** In a file, for clerks of several processes. */
export const inFile = (
  path: string
): Effect.Effect<Tickets<PlatformError.PlatformError>, never, FileSystem.FileSystem> =>
  Effect.map(FileSystem.FileSystem, (files) => ({
    left: Effect.map(files.readFileString(path), (text) => Number(text)),
    setLeft: (left) => files.writeFileString(path, String(left))
  }))

/** A sale that a clerk believes to have made. */
export interface Sale {
  /** The number of the ticket; they are sold from the greatest down to 1. */
  readonly ticket: number
  /** How long the clerk waited for the lock, in milliseconds. */
  readonly waited: number
  /** The fencing token of the lock, or zero without one. */
  readonly fencingToken: bigint
}

/** Sells one ticket and returns its number; zero when none is left. */
const sellOne = <E>(tickets: Tickets<E>): Effect.Effect<number, E> =>
  Effect.gen(function*() {
    const left = yield* tickets.left
    if (left <= 0) return 0
    yield* Effect.sleep(yield* Random.nextIntBetween(1, 3)) // the customer pays
    yield* tickets.setLeft(left - 1)
    return left
  })

/** Each clerk sells one ticket at a time, and the faster one wins. */
export const withoutLock = <E>(tickets: Tickets<E>): Effect.Effect<Sale, E> =>
  Effect.map(sellOne(tickets), (ticket) => ({ ticket, waited: 0, fencingToken: 0n }))

/** The same code inside `withLock`: one clerk at a time. */
export const locked = <E>(tickets: Tickets<E>): Effect.Effect<Sale, E | LockError, Lock> =>
  Effect.gen(function*() {
    const asked = yield* Clock.currentTimeMillis
    return yield* withLock("tickets/concert", (lease) =>
      Effect.gen(function*() {
        const waited = (yield* Clock.currentTimeMillis) - asked
        const ticket = yield* sellOne(tickets)
        return { ticket, waited, fencingToken: lease.fencingToken }
      }))
  })

/** So many clerks sell until nothing is left. */
export const sellOut = <E, R>(
  clerks: number,
  sell: Effect.Effect<Sale, E, R>,
  onSale: (sale: Sale) => Effect.Effect<void>
): Effect.Effect<void, E, R> => {
  const clerk = Effect.repeat(
    Effect.tap(sell, (sale) => sale.ticket > 0 ? onSale(sale) : Effect.void),
    { while: (sale) => sale.ticket > 0 }
  )
  return Effect.forEach(Array.from({ length: clerks }), () => clerk, { concurrency: "unbounded", discard: true })
}
