/**
 * Waiting in line: for the key just before ours, and for nothing else. A deletion wakes exactly one waiter.
 */
import { LockBackendError } from "@dlock/core/LockError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Attempt } from "./EtcdAttempt.ts"
import type { EtcdClient } from "./EtcdClient.ts"
import * as EtcdTxn from "./EtcdTxn.ts"
import type { EtcdWatch, Watch } from "./EtcdWatch.ts"

export interface EtcdWaiting {
  /** Where the attempt stands now; `undefined` when its key is gone. */
  readonly look: (
    attempt: Attempt,
    spot: EtcdTxn.Spot,
    revision: bigint
  ) => Effect.Effect<EtcdTxn.Standing | undefined, LockBackendError>
  /** Returns when nobody is before the attempt, or when it was displaced or given back. */
  readonly wait: (
    attempt: Attempt,
    spot: EtcdTxn.Spot,
    revision: bigint,
    predecessor: string
  ) => Effect.Effect<void, LockBackendError>
}

/** Watches on a predecessor, as far as they have come. */
interface Vigil {
  /** The revision of the store from which on the first stands. */
  standing: bigint | undefined
  deleted: boolean
  /** The first is. */
  broken: boolean
  readonly watches: Array<Watch>
}

const close = (vigil: Vigil): Effect.Effect<void> =>
  Effect.sync(() => {
    for (const watch of vigil.watches) watch.close()
  })

const noop = (): void => {}

const pauseAfterBreak = "50 millis"

/** Waits until it is so, or until the attempt need not wait any more. */
const until = (attempt: Attempt, done: () => boolean): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const check = (): void => {
      if (!attempt.over && !attempt.displaced && !done()) return
      attempt.wake = undefined
      resume(Effect.void)
    }
    attempt.wake = check
    check()
    return Effect.sync(() => attempt.wake = undefined)
  })

const silent = new LockBackendError({
  backend: "etcd",
  operation: "acquire",
  reason: "Timeout",
  detail: "no watch could be placed"
})

export const make = (client: EtcdClient, watches: EtcdWatch, commandTimeout: number): EtcdWaiting => {
  const look: EtcdWaiting["look"] = (attempt, { line, place }, revision) =>
    Effect.map(
      client.txn("acquire", EtcdTxn.look(line, place, revision), { total: attempt.limit(commandTimeout) }),
      (response) => {
        const standing = EtcdTxn.looked(response, revision)
        if (standing === undefined && attempt.revision === revision) attempt.displace("taken")
        return standing
      }
    )

  const open = (attempt: Attempt, key: string): Vigil => {
    const vigil: Vigil = { standing: undefined, deleted: false, broken: false, watches: [] }
    const tell = (change: Partial<Vigil>): void => {
      Object.assign(vigil, change)
      attempt.wake?.()
    }
    vigil.watches.push(watches.open(key, undefined, {
      onStanding: (standing) => tell({ standing }),
      onDeleted: () => tell({ deleted: true }),
      onBroken: () => tell({ broken: true })
    }))
    return vigil
  }

  /**
   * A write that came as the watch was placed makes it a watch from the past, which the server serves in a loop of
   * 100 ms. A second one is quicker, unless that happens again.
   */
  const openSecond = (attempt: Attempt, vigil: Vigil, key: string): void => {
    const onDeleted = (): void => {
      vigil.deleted = true
      attempt.wake?.()
    }
    vigil.watches.push(watches.open(key, undefined, { onStanding: noop, onDeleted, onBroken: noop }))
  }

  const wait: EtcdWaiting["wait"] = Effect.fnUntraced(function*(attempt, spot, revision, first) {
    const clock = yield* Clock.Clock
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
    let before: string | undefined = first
    const limit = attempt.limit(commandTimeout)
    let stoodAt = now()

    /** The predecessor after this one, or none. */
    const step = (vigil: Vigil, key: string) =>
      Effect.gen(function*() {
        yield* until(attempt, () => vigil.standing !== undefined || vigil.broken).pipe(
          Effect.timeoutOrElse({ duration: limit, orElse: () => Effect.sync(() => vigil.watches[0]?.condemn()) })
        )
        if (vigil.standing !== undefined && !vigil.broken) {
          const standing = yield* look(attempt, spot, revision)
          if (standing?.predecessor !== key) return standing?.predecessor
          if (standing.at !== vigil.standing) openSecond(attempt, vigil, key)
          yield* until(attempt, () => vigil.deleted || vigil.broken)
          stoodAt = now()
        }
        if (attempt.over || attempt.displaced) return undefined
        if (vigil.broken) {
          if (now() - stoodAt > limit) return yield* silent
          yield* Effect.sleep(pauseAfterBreak)
        }
        return (yield* look(attempt, spot, revision))?.predecessor
      })

    while (before !== undefined && !attempt.over && !attempt.displaced) {
      const key: string = before
      before = yield* Effect.acquireUseRelease(
        Effect.sync(() => open(attempt, key)),
        (vigil) => step(vigil, key),
        close
      )
    }
  })

  return { look, wait }
}
