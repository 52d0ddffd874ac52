/**
 * Waiting in line: for the key just before ours, and for nothing else. A deletion wakes exactly one waiter.
 */
import type { Grant, LockRequest } from "@dlock/core/LockBackend"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { ITxnResponse } from "etcd3"
import { etcd, isFull } from "./errors.ts"
import * as holds from "./holds.ts"
import type { Place } from "./holds.ts"
import { type Backend, board, grant, mostTries, noSession, pauseBetweenTries, placeOf, send } from "./line.ts"
import { claim } from "./releasing.ts"
import * as requests from "./requests.ts"
import type { Session } from "./session.ts"
import * as watches from "./watches.ts"

/** Until a waiter asks a server again that has no space. */
const pauseWhileFull = "500 millis"

const withdrawn = etcd.rejected("acquire", { detail: "this request was withdrawn" })

/** Where a request stands now; `undefined` when its key is gone. */
const look = (
  { client, commandTimeout }: Backend,
  place: Place,
  own: requests.Keys,
  revision: bigint
): Effect.Effect<requests.Standing | undefined, LockBackendError> =>
  Effect.map(
    client.txn("acquire", requests.look(own, revision), { total: place.limit(commandTimeout) }),
    (response) => {
      const standing = requests.looked(response, revision)
      if (standing === undefined && place.revision === revision) place.lose("taken")
      return standing
    }
  )

/** Enters the line; `undefined`: enter again. */
const enter = Effect.fnUntraced(function*(backend: Backend, place: Place, session: Session) {
  holds.unguard(backend.guard, place)
  place.isGone = false
  place.state = "waiting"
  const own = place.keysOn(session, backend.root)
  const onAnswer = (response: ITxnResponse): void => {
    place.revision = requests.entered(response)?.revision
  }
  const alone = { request: requests.enter(own) }
  let isAlone = true
  let response = yield* send(backend, place, session, () => {
    const leaving = claim(backend, place.request.key)
    if (leaving === undefined) return alone
    isAlone = false
    return { request: requests.handOver(own, leaving.name, leaving.revision), leaving }
  }, onAnswer)
  // The key to be removed was gone.
  if (!isAlone && response !== undefined && place.revision === undefined) {
    response = yield* send(backend, place, session, () => alone, onAnswer)
  }
  if (response === undefined) return undefined
  const entered = requests.entered(response)
  if (entered === undefined) return yield* withdrawn
  return "predecessor" in entered ? entered : yield* look(backend, place, own, entered.revision)
})

/** Enters the line on the session that the request lives on. */
const enterOnce = Effect.fnUntraced(function*(backend: Backend, place: Place) {
  const session = yield* board(backend, place)
  return session.ended === undefined ? yield* enter(backend, place, session) : undefined
})

/** Enters the line, as soon as the server has space for one more key or session. */
const enterWhenRoom = (
  backend: Backend,
  place: Place
): Effect.Effect<requests.Standing | undefined, LockBackendError> =>
  Effect.catchIf(
    enterOnce(backend, place),
    isFull,
    () => Effect.andThen(Effect.sleep(pauseWhileFull), enterWhenRoom(backend, place))
  )

/** The watches on a predecessor, as far as they have come. */
interface Watched {
  /** The revision of the store from which on the first stands. */
  standing: bigint | undefined
  isDeleted: boolean
  /** The first is. */
  isBroken: boolean
  readonly watches: Array<watches.Watch>
}

const noop = (): void => {}

/** Between watches that broke, in milliseconds. */
const shortestPause = 50
const longestPause = 2000

/** Waits until it is so, or until the request has no key to wait with. */
const until = (place: Place, isDone: () => boolean): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const check = (): void => {
      if (!place.isGone && !isDone()) return
      place.wake = undefined
      resume(Effect.void)
    }
    place.wake = check
    check()
    return Effect.sync(() => place.wake = undefined)
  })

const open = ({ watches: all }: Backend, place: Place, key: string): Watched => {
  const watched: Watched = { standing: undefined, isDeleted: false, isBroken: false, watches: [] }
  const tell = (change: Partial<Watched>): void => {
    Object.assign(watched, change)
    place.wake?.()
  }
  watched.watches.push(watches.open(all, { key }, {
    onStanding: (standing) => tell({ standing }),
    onDeleted: () => tell({ isDeleted: true }),
    onBroken: () => tell({ isBroken: true })
  }))
  return watched
}

/**
 * A write that came as the watch was placed makes it a watch from the past, which the server serves in a loop of
 * 100 ms. A second one is quicker, unless that happens again.
 */
const openSecond = ({ watches: all }: Backend, place: Place, watched: Watched, key: string): void => {
  const onDeleted = (): void => {
    watched.isDeleted = true
    place.wake?.()
  }
  watched.watches.push(watches.open(all, { key }, { onStanding: noop, onDeleted, onBroken: noop }))
}

const close = (watched: Watched): Effect.Effect<void> =>
  Effect.sync(() => {
    watched.watches.forEach(watches.close)
  })

/** Waits for one predecessor; answers where the request stands then. A pause is longer than the one before it. */
const waitFor = Effect.fnUntraced(function*(
  backend: Backend,
  place: Place,
  own: requests.Keys,
  { at, predecessor, revision }: requests.Standing,
  watched: Watched,
  pauses: { next: number }
) {
  const placed = yield* until(place, () => watched.standing !== undefined || watched.isBroken).pipe(
    Effect.timeoutOption(place.limit(backend.commandTimeout))
  )
  // A server that does not place watches answers requests, or they fail.
  if (Option.isNone(placed)) watched.watches.forEach(watches.suspect)
  if (watched.standing !== undefined && !watched.isBroken) {
    // Nothing was written between the entry and the watch, so nothing needs to be looked up.
    if (watched.standing !== at) {
      const standing = yield* look(backend, place, own, revision)
      if (standing?.predecessor === undefined || standing.predecessor !== predecessor) return standing
      if (standing.at !== watched.standing) openSecond(backend, place, watched, standing.predecessor)
    }
    yield* until(place, () => watched.isDeleted || watched.isBroken)
    pauses.next = shortestPause
  }
  if (place.isGone) return undefined
  if (watched.isBroken) {
    yield* Effect.sleep(pauses.next)
    pauses.next = Math.min(pauses.next * 2, longestPause)
  }
  return yield* look(backend, place, own, revision)
})

/** Waits until nothing is before the request, and answers where it stands then; `undefined`: its key is gone. */
const wait = Effect.fnUntraced(function*(
  backend: Backend,
  place: Place,
  own: requests.Keys,
  first: requests.Standing
): Effect.fn.Return<requests.Standing | undefined, LockBackendError> {
  const pauses = { next: shortestPause }
  let standing: requests.Standing | undefined = first
  while (standing?.predecessor !== undefined && !place.isGone) {
    const { predecessor }: requests.Standing = standing
    const now: requests.Standing = standing
    standing = yield* Effect.acquireUseRelease(
      Effect.sync(() => open(backend, place, predecessor)),
      (watched) => waitFor(backend, place, own, now, watched, pauses),
      close
    )
  }
  return place.isGone ? undefined : standing
})

/** Waits in line until the key is ours. */
export const acquire = Effect.fnUntraced(function*(
  backend: Backend,
  request: LockRequest
): Effect.fn.Return<Grant, LockBackendError> {
  const place = placeOf(backend, request)
  for (let tries = 0; tries < mostTries; tries++) {
    if (tries > 0) yield* Effect.sleep(pauseBetweenTries)
    let standing = yield* enterWhenRoom(backend, place)
    const { session } = place
    if (session === undefined) continue
    if (standing?.predecessor !== undefined) {
      place.waited = true
      holds.guard(backend.guard, place)
      standing = yield* wait(backend, place, place.keysOn(session, backend.root), standing)
      // What it lost while it waited was not lost at once.
      tries = 0
    }
    const granted = grant(backend, place, session, standing?.at)
    if (granted !== undefined) return granted
  }
  return yield* noSession
})
