/**
 * The nodes above the lock nodes. They are made with the first lock node below them, and removed when this process has
 * not used them for a while. No process waits for another here: the server refuses to remove a node that has children,
 * and a request that finds its parent gone makes it again. Below the prefix they are containers, which the server
 * removes some time after their last child: so a process that dies leaves nothing.
 */
import type { LockBackendError } from "@dlock/core/LockError"
import * as Effect from "effect/Effect"
import { ask } from "./calls.ts"
import { codes, errors, refused } from "./errors.ts"
import { levels } from "./names.ts"
import { type Acl, type Call, create, createContainer, remove, type Reply } from "./requests.ts"
import type { Session } from "./session.ts"

interface Directory {
  /** How many of this process are in it. */
  requests: number
  /** As far as is known. */
  exists: boolean
  /** When the last of them left. */
  leftAt: number
}

/** A parent that is not used for this long is removed: a key that is locked now and again keeps its parents. */
const longestIdle = 2000
const period = 1000
const batch = 256

export class Parents {
  private readonly prefix: string
  private readonly acl: Acl
  private readonly session: Session
  private readonly directories = new Map<string, Directory>()
  private prefixExists = false

  constructor(prefix: string, acl: Acl, session: Session) {
    this.prefix = prefix
    this.acl = acl
    this.session = session
  }

  /** A request begins below this directory. */
  enter(directory: string): void {
    const known = this.directories.get(directory)
    if (known === undefined) this.directories.set(directory, { requests: 1, exists: false, leftAt: 0 })
    else known.requests += 1
  }

  /** A request below this directory has ended. */
  leave(directory: string): void {
    const known = this.directories.get(directory)
    if (known === undefined) return
    known.requests -= 1
    known.leftAt = this.session.timers.now()
  }

  /** Makes what is missing above a lock node in this directory, as far as is known. */
  missing(directory: string): ReadonlyArray<Call> {
    if (this.directories.get(directory)?.exists === true) return []
    return levels(directory)
      .filter((path) => !this.prefixExists || path.length > this.prefix.length)
      .map((path) => path.length > this.prefix.length ? createContainer(path, this.acl) : create(path, this.acl))
  }

  /** The server has this directory, or does not. */
  private setExists(directory: string, exists: boolean): void {
    this.prefixExists = exists
    const known = this.directories.get(directory)
    if (known !== undefined) known.exists = exists
  }

  /** A lock node was made in this directory. */
  found(directory: string): void {
    this.setExists(directory, true)
  }

  /**
   * The server found no parent for a lock node in this directory. `made` answers what was `missing`; the result says why
   * making it again is of no use, if so.
   */
  vanished(directory: string, made: ReadonlyArray<Reply>): LockBackendError | undefined {
    const isTopMissing = made.length === levels(directory).length && made[0]?.code === codes.noNode
    this.setExists(directory, false)
    if (isTopMissing) return errors.rejected("acquire", { detail: "NoNode: the chroot of the client does not exist" })
    const refusal = made.find(({ code }) => code !== codes.ok && code !== codes.nodeExists && code !== codes.noNode)
    return refusal === undefined ? undefined : refused("acquire", refusal.code)
  }

  /** Removes what has not been used for a while, again and again. */
  get keep(): Effect.Effect<never> {
    return Effect.forever(Effect.andThen(Effect.sleep(period), this.sweep(longestIdle)))
  }

  /** Removes what has not been used for this long. */
  sweep(idle: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      const unused = this.session.client.isConnected ? this.takeUnused(idle) : []
      if (unused.length === 0) return Effect.void
      const all = new Set(unused.flatMap(levels).filter((path) => path.length > this.prefix.length))
      const deepestFirst = [...all].toSorted((a, b) => b.length - a.length)
      return ask(this.session, "release", ...deepestFirst.map(remove)).pipe(
        // What is left has no meaning, and the server removes it.
        Effect.ignore,
        Effect.andThen(this.sweep(idle))
      )
    })
  }

  private takeUnused(idle: number): ReadonlyArray<string> {
    const before = this.session.timers.now() - idle
    const unused: Array<string> = []
    for (const [directory, { exists, leftAt, requests }] of this.directories) {
      if (unused.length === batch) break
      if (requests > 0 || leftAt > before) continue
      this.directories.delete(directory)
      if (exists) unused.push(directory)
    }
    return unused
  }
}
