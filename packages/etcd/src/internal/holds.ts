/**
 * What is known of a request, and the watch over what it has: on its own key, so that a key that is deleted behind our
 * back, or whose lease is revoked, is a loss at once and not at the next renewal; and on the line of a key that is held,
 * to tell when another process waits. All watches share one stream. A key is watched from a tenth of a second after it
 * was put, so that short sections cost nothing; the watch starts at the revision of the key, so that nothing is missed.
 */
import type { LockRequest } from "@dlock/core/LockBackend"
import type { LockBackendError, LossReason } from "@dlock/core/LockError"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type { EtcdClient } from "./client.ts"
import * as names from "./names.ts"
import * as requests from "./requests.ts"
import * as sessions from "./session.ts"
import type { Member, Session, Sessions } from "./session.ts"
import * as watches from "./watches.ts"

/**
 * What is known of a request. Ten thousand of them are kept while ten thousand locks are held, so it has no closures of
 * its own.
 */
export class Place implements Member {
  readonly request: LockRequest
  session: Session | undefined
  /** Its create revision, while its key is known to exist. */
  revision: bigint | undefined
  state: "asking" | "waiting" | "held" | "over" = "asking"
  /** It has stood in line. */
  waited = false
  /** Its key is gone, or the session that it was on. */
  isGone = false
  /** A request was sent that may still put its key. */
  isUnknown = false
  /** A request was sent that may have removed its key. */
  mayBeRemoved = false
  /** Sends what puts its key, for as long as anything wants it: also when the caller was interrupted. */
  sending: Fiber.Fiber<unknown, unknown> | undefined
  /** Wakes the fiber that waits in line. */
  wake: (() => void) | undefined
  /** The watch on its own key; while it holds the lock, on the whole line. */
  watch: watches.Watch | undefined
  watchesLine = false

  constructor(request: LockRequest) {
    this.request = request
  }

  /** How long a request for it may take, in milliseconds: never longer than the lease. */
  limit(commandTimeout: number): number {
    return Math.min(commandTimeout, this.request.ttl)
  }

  /** Its keys on a session. */
  keysOn(session: Session, root: string): requests.Keys {
    const { key, owner } = this.request
    const { line, mark, place } = names.of(root, key)
    return { line, place: place(session.id, owner), mark: mark(owner), lease: session.id }
  }

  onSessionEnd(reason: LossReason): void {
    this.lose(reason)
  }

  /** Its key is gone. A holder is told, and a waiter enters the line again. */
  lose(reason: LossReason): void {
    this.isGone = true
    this.revision = undefined
    if (this.state === "held") this.request.onLost(reason)
    this.wake?.()
  }
}

interface Options {
  readonly client: EtcdClient
  readonly watches: watches.Watches
  readonly sessions: Sessions
  readonly commandTimeout: number
  readonly root: string
}

export interface Guard extends Options {
  readonly latch: Latch.Latch
  /** Runs in the background of the layer. */
  readonly fork: (effect: Effect.Effect<unknown>) => void
  /** Their key was put, or the lock granted, a moment ago. */
  readonly fresh: Set<Place>
  /** Their watch broke: what happened since is unknown. */
  readonly blind: Set<Place>
  /** Their watch stands again, but what happened in between is unknown. */
  readonly unsure: Set<Place>
}

/** Milliseconds. */
const pause = 100
const pauseAfterBreak = 500
const longestQuestion = 1000

const queue = ({ latch }: Guard, set: Set<Place>, place: Place): void => {
  set.add(place)
  latch.openUnsafe()
}

const takeAll = (set: Set<Place>): ReadonlyArray<Place> => {
  const all = [...set].filter((place) => place.state !== "over" && !place.isGone)
  set.clear()
  return all
}

/**
 * Looks whether the key is gone before that is believed, and whether it alone is, or the whole session. Tells a holder
 * that another request waits.
 */
const check = Effect.fnUntraced(function*(guard: Guard, place: Place, session: Session, revision: bigint) {
  const { client, commandTimeout, root } = guard
  const own = place.keysOn(session, root)
  const response = yield* client.txn("look after a key", requests.check(own, revision), { total: commandTimeout })
  const checked = requests.checked(response, own)
  if (checked !== undefined) return checked.isWanted && place.state === "held" ? place.request.onWanted() : undefined
  yield* Effect.timeoutOption(Effect.ignore(sessions.refresh(guard.sessions, session)), longestQuestion)
  if (session.ended === undefined && place.revision === revision) place.lose("taken")
})

const checkSoon = (guard: Guard, place: Place, session: Session, revision: bigint): void =>
  guard.fork(
    Effect.catch(
      check(guard, place, session, revision),
      () => Effect.sync(() => queue(guard, guard.unsure, place))
    )
  )

const endWatch = (place: Place): void => {
  if (place.watch !== undefined) watches.close(place.watch)
  place.watch = undefined
}

/** From its key on; but what is older than a moment is looked up, because a watch from the past costs the server. */
const watch = (guard: Guard, place: Place, wasBlind: boolean): void => {
  const { revision, session } = place
  if (session === undefined || session.ended !== undefined || revision === undefined) return
  const isHeld = place.state === "held"
  if (place.watch !== undefined && place.watchesLine === isHeld) return
  endWatch(place)
  place.watchesLine = isHeld
  const own = place.keysOn(session, guard.root)
  const isOld = wasBlind || place.waited
  const range = isHeld ? { key: own.line, end: names.endOf(own.line) } : { key: own.place }
  place.watch = watches.open(guard.watches, { ...range, from: isOld ? undefined : revision + 1n }, {
    onStanding: () => {
      if (wasBlind) {
        queue(guard, guard.unsure, place)
        // Requests that came meanwhile are not looked up for thousands of locks at once.
        if (isHeld) place.request.onWanted()
      } else if (isOld) checkSoon(guard, place, session, revision)
    },
    onDeleted: (key) => {
      if (key === own.place) checkSoon(guard, place, session, revision)
    },
    onPut: isHeld ? (key) => key === own.place || place.request.onWanted() : undefined,
    onBroken: () => {
      place.watch = undefined
      queue(guard, guard.blind, place)
    }
  })
}

/** One question per session, however many locks live on it. */
const audit = Effect.fnUntraced(function*(
  guard: Guard,
  session: Session,
  places: ReadonlyArray<Place>
): Effect.fn.Return<void, LockBackendError> {
  const keys = yield* guard.client.keysOf(session.id, { total: guard.commandTimeout })
  for (const place of places) {
    const { revision } = place
    if (place.session !== session || revision === undefined || place.state === "over") continue
    if (!keys.has(place.keysOn(session, guard.root).place)) yield* check(guard, place, session, revision)
  }
})

const round = Effect.fnUntraced(function*(guard: Guard) {
  const unsure = takeAll(guard.unsure)
  for (const session of new Set(unsure.map(({ session }) => session))) {
    if (session === undefined || session.ended !== undefined) continue
    const places = unsure.filter((place) => place.session === session)
    yield* audit(guard, session, places).pipe(
      Effect.catch(() => Effect.sync(() => places.forEach((place) => queue(guard, guard.unsure, place))))
    )
  }
  for (const place of takeAll(guard.blind)) watch(guard, place, true)
  for (const place of takeAll(guard.fresh)) watch(guard, place, false)
})

export const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<Guard, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const guard: Guard = {
    ...options,
    latch: yield* Latch.make(false),
    fork: (effect) => run(Effect.forkIn(effect, scope)),
    fresh: new Set(),
    blind: new Set(),
    unsure: new Set()
  }
  yield* guard.latch.await.pipe(
    Effect.andThen(guard.latch.close),
    Effect.andThen(
      Effect.suspend(() => Effect.sleep(guard.blind.size + guard.unsure.size > 0 ? pauseAfterBreak : pause))
    ),
    Effect.andThen(round(guard)),
    Effect.forever,
    Effect.forkScoped
  )
  return guard
})

/** Watches its key from some time on, or its line once it holds the lock. */
export const guard = (guard: Guard, place: Place): void =>
  place.request.lingers === true && place.state === "held"
    ? watch(guard, place, false)
    : queue(guard, guard.fresh, place)

export const unguard = ({ blind, fresh, unsure }: Guard, place: Place): void => {
  fresh.delete(place)
  blind.delete(place)
  unsure.delete(place)
  endWatch(place)
}
