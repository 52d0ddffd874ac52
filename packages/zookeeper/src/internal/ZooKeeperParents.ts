/**
 * The persistent nodes above the lock nodes. They are made with the first lock node below them, and removed when they
 * have been of no use to this process for a while. Nobody waits for anybody: the server refuses to remove a node that
 * has children, and who finds that a parent has vanished makes it again.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { levels } from "./ZooKeeperPath.ts"
import { remove } from "./ZooKeeperRequest.ts"
import type { Session } from "./ZooKeeperSession.ts"
import type { Talk } from "./ZooKeeperVerb.ts"

export interface Parents {
  /** An attempt begins below this node, */
  readonly enter: (directory: string) => void
  /** and is over. */
  readonly leave: (directory: string) => void
  /** What has to be made before a lock node below this node, as far as is known. */
  readonly missing: (directory: string) => ReadonlyArray<string>
  /** It is there, */
  readonly found: (directory: string) => void
  /** or it is not. */
  readonly vanished: (directory: string) => void
  /** Removes what is of no use any more, again and again. */
  readonly keep: Effect.Effect<never>
  /** Removes what is of no use, at once. */
  readonly clear: Effect.Effect<void>
}

interface Directory {
  attempts: number
  isThere: boolean
}

/** A parent that is of no use for this long is removed: a key that is locked now and again keeps its parents. */
const longestIdle = Duration.toNanosUnsafe("2 seconds")
const period = Duration.seconds(1)
const batch = 256

export const make = (prefix: string, session: Session, talk: Talk, clock: Clock.Clock): Parents => {
  const directories = new Map<string, Directory>()
  /** Those of no use, with the time since when, the longest idle first. */
  const idle = new Map<string, bigint>()
  let prefixIsThere = false

  const take = (before: bigint): ReadonlyArray<string> => {
    const taken: Array<string> = []
    for (const [directory, since] of idle) {
      if (since > before || taken.length === batch) break
      idle.delete(directory)
      directories.delete(directory)
      taken.push(directory)
    }
    return taken
  }

  const sweep = (before: () => bigint): Effect.Effect<void> =>
    Effect.suspend(() => {
      const taken = session.client().isConnected() ? take(before()) : []
      if (taken.length === 0) return Effect.void
      const all = new Set(taken.flatMap(levels).filter((path) => path.length > prefix.length))
      const deepestFirst = [...all].toSorted((a, b) => b.length - a.length)
      return talk.run("release", (verb) => talk.exchange(verb, () => deepestFirst.map(remove))).pipe(
        // What is left has no meaning, and whoever uses it next removes it.
        Effect.ignore,
        Effect.andThen(taken.length === batch ? sweep(before) : Effect.void)
      )
    })

  return {
    enter: (directory) => {
      const known = directories.get(directory)
      if (known === undefined) directories.set(directory, { attempts: 1, isThere: false })
      else known.attempts += 1
      idle.delete(directory)
    },
    leave: (directory) => {
      const known = directories.get(directory)
      if (known === undefined) return
      known.attempts -= 1
      if (known.attempts > 0) return
      if (known.isThere) idle.set(directory, clock.monotonicTimeNanosUnsafe())
      else directories.delete(directory)
    },
    missing: (directory) => {
      if (directories.get(directory)?.isThere === true) return []
      return levels(directory).filter((path) => !prefixIsThere || path.length > prefix.length)
    },
    found: (directory) => {
      prefixIsThere = true
      const known = directories.get(directory)
      if (known !== undefined) known.isThere = true
    },
    vanished: (directory) => {
      prefixIsThere = false
      const known = directories.get(directory)
      if (known !== undefined) known.isThere = false
    },
    keep: Effect.forever(
      Effect.andThen(Effect.sleep(period), sweep(() => clock.monotonicTimeNanosUnsafe() - longestIdle))
    ),
    clear: sweep(() => clock.monotonicTimeNanosUnsafe())
  }
}
