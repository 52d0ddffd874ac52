/**
 * What a program that has permits works under: the leases of all of them as one.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Lease } from "../Lease.ts"
import { type LockBackendError, LockLost } from "../LockError.ts"
import { ExposedLease } from "./exposed.ts"

/** A lease of one or several permits. */
export interface Permit extends Lease {
  /** Which permit it is, from 0 on; of several the first. Tokens compare only within one permit. */
  readonly permit: number
}

/** A loss of a lock that permits are made of is a loss of what was asked for. */
export const lossAbout = (key: string, { fencingToken, owner, reason }: LockLost): LockLost =>
  new LockLost({ key, owner, fencingToken, reason })

/** The leases as one, which is held while all of them are. */
export const permitOf = (key: string, permit: number, leases: ReadonlyArray<Lease>): Permit => {
  const [first] = leases
  const printed = {
    key,
    owner: first?.owner ?? "",
    backend: first?.backend ?? "",
    fencingToken: first?.fencingToken ?? 0n,
    permit
  }
  const about = <A, E extends LockLost | LockBackendError>(effect: Effect.Effect<A, E>) =>
    Effect.mapError(effect, (error): E | LockLost => error instanceof LockLost ? lossAbout(key, error) : error)
  const remaining = Effect.map(
    Effect.forEach(leases, (lease) => lease.remaining),
    (all) => all.reduce((least, one) => Duration.min(least, one), Duration.infinity)
  )
  const keys = new Set(leases.map((lease) => lease.key))
  return Object.assign(new ExposedLease(printed), {
    permit,
    lost: about(Effect.raceAllFirst(leases.map(({ lost }) => lost))),
    isHeld: Effect.map(Effect.forEach(leases, ({ isHeld }) => isHeld), (all) => all.every(Boolean)),
    remaining,
    renew: about(Effect.forEach(leases, ({ renew }) => renew, { concurrency: "unbounded", discard: true })),
    guard: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.mapError(
        leases.reduceRight((guarded: Effect.Effect<A, E | LockLost, R>, lease) => lease.guard(guarded), effect),
        (error) => error instanceof LockLost && keys.has(error.key) ? lossAbout(key, error) : error
      ),
    release: about(Effect.forEach(leases.toReversed(), ({ release }) => release, {
      concurrency: "unbounded",
      discard: true
    }))
  })
}
