/**
 * Several keys at once, a limit over all processes, and readers beside writers.
 */
import { type Lock, withLocks, withPermit } from "@dlock/core"
import type { Effect } from "effect"

/** Both accounts, in one order for every caller: two transfers in opposite directions do not wait for each other. */
export const transfer = <A, E, R>(from: string, to: string, program: Effect.Effect<A, E, R>) =>
  withLocks([`accounts/${from}`, `accounts/${to}`], program, { timeout: "5 seconds" })

/** At most five calls of the partner's API at a time, whatever the number of processes. */
export const polite = <A, E, R>(call: Effect.Effect<A, E, R>) => withPermit("partner-api", { limit: 5 }, call)

const readers = 16

/** A reader has one permit: up to 16 read at a time. */
export const withSharedLock = <A, E, R>(key: string, program: Lock.PermitProgram<A, E, R>) =>
  withPermit(key, { limit: readers }, program)

/** A writer has all of them. It waits its turn in the same line, so readers cannot keep it waiting for ever. */
export const withExclusiveLock = <A, E, R>(key: string, program: Lock.PermitProgram<A, E, R>) =>
  withPermit(key, { limit: readers, permits: readers }, program)
