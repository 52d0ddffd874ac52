/**
 * One request to a server within a time limit, and again for as long as its failure passes by itself.
 *
 * @stability unstable
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { Timers } from "./Timers.ts"
import { timer } from "./Timers.ts"

/**
 * One try: sends a request whose answer settles it, or its time limit does. What comes after that is dropped.
 *
 * @category models
 * @since 0.1.0
 */
export interface Try<A, E> {
  /** The longest wait for the answer, in milliseconds. */
  readonly limit: number
  /** Sends the request. What it returns is called when no caller waits for the answer any more. */
  readonly send: (settle: (exit: Exit.Exit<A, E>) => void) => (() => void) | void
  /** The error when there is no answer in time: the outcome is unknown. */
  readonly onLate: (limit: number) => E
}

/**
 * Runs one try. Interruption does not wait for the answer.
 *
 * @category combinators
 * @since 0.1.0
 */
export const once = <A, E>(timers: Timers, { limit, onLate, send }: Try<A, E>): Effect.Effect<A, E> =>
  Effect.callback((resume) => {
    let drop: (() => void) | void
    const late = timer(() => {
      resume(Effect.fail(onLate(limit)))
      drop?.()
    })
    timers.set(late, timers.now() + limit)
    drop = send((exit) => {
      if (timers.clear(late)) resume(exit)
    })
    return Effect.sync(() => {
      if (timers.clear(late)) drop?.()
    })
  })

/**
 * How a request is repeated.
 *
 * @category models
 * @since 0.1.0
 */
export interface Repetition<E> {
  /** The longest time for all tries, in milliseconds: the command timeout, or the ttl if that is less. */
  readonly limit: number
  /** How many tries follow each other without a pause, because each goes another way. Default: one. */
  readonly ways?: number | undefined
  /** Whether to try again after this failure: `Errors.passes`. */
  readonly again: (error: E) => boolean
  /** Whether a try ran out of time, which says less than what one before it failed with. Default: none does. */
  readonly late?: ((error: E) => boolean) | undefined
}

const shortestPause = 20
const longestPause = 500

/**
 * Runs an attempt again while its failure passes by itself and there is time, with a pause that doubles from 20 to 500
 * ms. `left` is the time that is left for the attempt. Fails with the last failure that is not late, if there is one.
 *
 * @category combinators
 * @since 0.1.0
 */
export const repeat = <A, E>(
  timers: Timers,
  { again, late, limit, ways = 1 }: Repetition<E>,
  attempt: (left: number) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.suspend(() => {
    const end = timers.now() + limit
    const from = (tries: number, told?: { readonly error: E }): Effect.Effect<A, E> =>
      Effect.catch(attempt(Math.max(end - timers.now(), 1)), (error) => {
        const best = told !== undefined && late?.(error) === true ? told : { error }
        const pause = tries < ways ? 0 : Math.min(shortestPause * 2 ** (tries - ways), longestPause)
        if (!again(error) || timers.now() + pause + 1 >= end) return Effect.fail(best.error)
        return Effect.flatMap(pause === 0 ? Effect.yieldNow : Effect.sleep(pause), () => from(tries + 1, best))
      })
    return from(1)
  })
