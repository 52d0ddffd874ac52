/**
 * Waiting for a key: a place in the server's line, kept by a small request now and then, until the key is handed over.
 */
import type { Grant, LockBackendError } from "@dlock/core"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import { lacksCapacity } from "./errors.ts"
import type { Listener, Waiter } from "./listener.ts"
import type { Requests, State, Taken } from "./requests.ts"
import { newPlace } from "./requests.ts"
import { livenessMillis } from "./schema.ts"

/** How often a waiter shows that it is alive, and looks whether a message was lost. */
const refreshMillis = livenessMillis / 3

/** How often it looks where no messages arrive. */
const lookMillis = [200, 600] as const

/** The pause of a waiter while the server lacks connections, memory or disk. */
const capacityPause = 500

/** Asks until the server has room for it. */
const takeWhenRoom = (requests: Requests, state: State, place: bigint): Effect.Effect<Taken, LockBackendError> =>
  Effect.catch(requests.take(state, place), (error) =>
    lacksCapacity(error)
      ? Effect.andThen(Effect.sleep(capacityPause), Effect.suspend(() => takeWhenRoom(requests, state, place)))
      : Effect.fail(error))

const sleep = Effect.fnUntraced(
  function*(listener: Listener, waiter: Waiter, taken: Taken & { readonly _tag: "Waiting" }) {
    const usual = listener.isListening ? refreshMillis : yield* Random.nextIntBetween(...lookMillis)
    // The first in line looks when the holder's time is over; a moment later, so that the server's clock is past it.
    const limit = taken.rank === 0 ? Math.min(usual, Math.max(taken.remaining, 0) + 1) : usual
    yield* Effect.timeoutOption(waiter.look.await, limit)
    const { isGranted } = waiter
    waiter.isGranted = false
    waiter.look.closeUnsafe()
    return isGranted
  }
)

/**
 * Stands in line until the key is ours. A key that was handed over is ours for a moment only, until it is confirmed by a
 * renewal. If the moment has passed, the request stands in line again with the ticket that it had.
 */
const stand = Effect.fnUntraced(
  function*(
    requests: Requests,
    listener: Listener,
    state: State,
    waiter: Waiter
  ): Effect.fn.Return<Grant, LockBackendError> {
    let taken = yield* takeWhenRoom(requests, state, newPlace)
    let isFirst = true
    while (taken._tag === "Waiting") {
      isFirst = false
      if (yield* sleep(listener, waiter, taken)) {
        const confirmed = yield* requests.confirm(state)
        if (Option.isSome(confirmed)) return confirmed.value
      }
      taken = yield* takeWhenRoom(requests, state, taken.ticket)
    }
    // A waiter that finds the key handed to it by looking has missed a message.
    if (!isFirst && listener.isListening) listener.suspect()
    return taken.grant
  }
)

/** Waits until the key is ours. */
export const acquire = (requests: Requests, listener: Listener, state: State): Effect.Effect<Grant, LockBackendError> =>
  Effect.suspend(() => {
    const waiter = listener.register(state.owner)
    return Effect.ensuring(
      stand(requests, listener, state, waiter),
      Effect.sync(() => listener.leave(state.owner, waiter))
    )
  })
