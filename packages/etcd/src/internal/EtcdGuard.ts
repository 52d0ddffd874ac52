/**
 * Watches our own keys, so that a key that somebody deletes, or whose lease somebody revokes, is a loss at once and
 * not at the next renewal. All watches share one stream. A key is watched from half a second after it was put, so
 * that short sections cost nothing; the watch starts at the revision of the key, so that nothing is missed.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type { Attempt } from "./EtcdAttempt.ts"
import type { EtcdClient } from "./EtcdClient.ts"
import type { Session, Sessions } from "./EtcdSession.ts"
import * as EtcdTxn from "./EtcdTxn.ts"
import type { EtcdWatch } from "./EtcdWatch.ts"

export interface EtcdGuard {
  readonly add: (attempt: Attempt) => void
  readonly remove: (attempt: Attempt) => void
}

/** Milliseconds. */
const pause = 500
const longestQuestion = 1000

const takeAll = (set: Set<Attempt>): ReadonlyArray<Attempt> => {
  const all = [...set].filter((attempt) => !attempt.over && !attempt.displaced)
  set.clear()
  return all
}

export const make = Effect.fnUntraced(function*(
  client: EtcdClient,
  watches: EtcdWatch,
  sessions: Sessions,
  commandTimeout: number,
  root: string
): Effect.fn.Return<EtcdGuard, never, Scope.Scope> {
  const latch = yield* Latch.make(false)
  const scope = yield* Effect.scope
  const run = Effect.runForkWith(yield* Effect.context<never>())
  /** Their key was put a moment ago. */
  const fresh = new Set<Attempt>()
  /** Their watch broke: what happened since is unknown. */
  const blind = new Set<Attempt>()
  /** Their watch stands again, but what happened in between is unknown. */
  const unsure = new Set<Attempt>()

  const queue = (set: Set<Attempt>, attempt: Attempt): void => {
    set.add(attempt)
    latch.openUnsafe()
  }

  const placeOf = (attempt: Attempt, session: Session): string => attempt.spotOn(session, root).place

  /** The key is gone: it alone, or the whole session. */
  const onGone = Effect.fnUntraced(function*(attempt: Attempt, session: Session, revision: bigint) {
    yield* Effect.timeoutOption(Effect.ignore(sessions.refresh(session)), longestQuestion)
    if (session.ended === undefined && attempt.revision === revision) attempt.displace("taken")
  })

  const watch = (attempt: Attempt, wasBlind: boolean): void => {
    const { revision, session } = attempt
    if (session === undefined || session.ended !== undefined || revision === undefined) return
    attempt.guard = watches.open(placeOf(attempt, session), wasBlind ? undefined : revision + 1n, {
      onStanding: () => {
        if (wasBlind) queue(unsure, attempt)
      },
      onDeleted: () => {
        run(Effect.forkIn(onGone(attempt, session, revision), scope))
      },
      onBroken: () => {
        attempt.guard = undefined
        queue(blind, attempt)
      }
    })
  }

  /** One question per session, however many locks live on it. */
  const audit = Effect.fnUntraced(function*(session: Session, attempts: ReadonlyArray<Attempt>) {
    const keys = yield* client.keysOf(session.id, { total: commandTimeout })
    for (const attempt of attempts) {
      const { revision } = attempt
      if (attempt.session !== session || revision === undefined || attempt.over) continue
      const place = placeOf(attempt, session)
      if (keys.has(place)) continue
      const { line } = attempt.spotOn(session, root)
      const response = yield* client.txn("look", EtcdTxn.look(line, place, revision), { total: commandTimeout })
      if (EtcdTxn.looked(response, revision) === undefined) yield* onGone(attempt, session, revision)
    }
  })

  const round = Effect.fnUntraced(function*() {
    const all = takeAll(unsure)
    for (const session of new Set(all.map((attempt) => attempt.session))) {
      if (session === undefined || session.ended !== undefined) continue
      const attempts = all.filter((attempt) => attempt.session === session)
      yield* audit(session, attempts).pipe(
        Effect.catch(() => Effect.sync(() => attempts.forEach((attempt) => queue(unsure, attempt))))
      )
    }
    for (const attempt of takeAll(blind)) watch(attempt, true)
    for (const attempt of takeAll(fresh)) watch(attempt, false)
  })

  yield* latch.await.pipe(
    Effect.andThen(latch.close),
    Effect.andThen(Effect.sleep(pause)),
    Effect.andThen(round()),
    Effect.forever,
    Effect.forkScoped
  )

  return {
    add: (attempt) => {
      if (attempt.guard === undefined && !blind.has(attempt)) queue(fresh, attempt)
    },
    remove: (attempt) => {
      fresh.delete(attempt)
      blind.delete(attempt)
      unsure.delete(attempt)
      attempt.guard?.close()
      attempt.guard = undefined
    }
  }
})
