/**
 * The local line: fibers of one process that want the same key line up in memory, first come first served, and only
 * the head talks to the backend. So the backend sees one contender per process and key.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { LockBackendError } from "../LockError.ts"

/**
 * A place in the line of one key. `leaving`: the head has sent its release, and whoever comes next may go on, so that
 * its request goes out together with that release.
 */
export class Place {
  private readonly line: Line
  private turn: ((exit: Exit.Exit<void, LockBackendError>) => void) | undefined
  private outcome: Exit.Exit<void, LockBackendError> | undefined
  state: "queued" | "head" | "leaving" | "gone" = "queued"

  constructor(line: Line) {
    this.line = line
  }

  /** Completes when this place is the head; fails when the head found the backend out of reach. */
  get awaitTurn(): Effect.Effect<void, LockBackendError> {
    return Effect.callback<void, LockBackendError>((resume) => {
      if (this.outcome !== undefined) resume(this.outcome)
      else this.turn = resume
    })
  }

  settle(exit: Exit.Exit<void, LockBackendError>): void {
    this.outcome = exit
    this.turn?.(exit)
  }

  /** The release of the head is about to be sent: the next may send its request right behind it. */
  handOn(): void {
    if (this.state !== "head") return
    this.state = "leaving"
    this.line.promote()
  }

  /** Leaves, from any place of the line. */
  leave(): void {
    if (this.state === "gone") return
    const wasHead = this.state === "head"
    this.state = "gone"
    this.line.remove(this, wasHead)
  }

  /** The backend is out of reach: whoever stands behind gets the same error at once. */
  failAll(error: LockBackendError): void {
    this.line.failQueued(error)
  }
}

/** The line of one key. */
export class Line {
  private readonly lines: Map<string, Line>
  private readonly key: string
  /** In the order of arrival; a `Set` forgets a waiter that leaves from the middle in constant time. */
  private queued: Set<Place> | undefined
  private head: Place | undefined

  constructor(lines: Map<string, Line>, key: string) {
    this.lines = lines
    this.key = key
  }

  get free(): boolean {
    return this.head === undefined || (this.head.state === "leaving" && !this.hasQueue)
  }

  get hasQueue(): boolean {
    return this.queued !== undefined && this.queued.size > 0
  }

  enter(): Place {
    const place = new Place(this)
    if (this.free) {
      place.state = "head"
      this.head = place
    } else {
      this.queued ??= new Set()
      this.queued.add(place)
    }
    return place
  }

  promote(): void {
    const next = this.queued?.values().next().value
    if (next === undefined) return
    this.queued?.delete(next)
    next.state = "head"
    this.head = next
    // Whoever makes room sends its release and answers its caller first, and a long line of short sections does not nest.
    queueMicrotask(() => next.settle(Exit.void))
  }

  remove(place: Place, wasHead: boolean): void {
    this.queued?.delete(place)
    if (wasHead) this.promote()
    if (this.head === place) {
      this.head = undefined
      this.lines.delete(this.key)
    }
  }

  failQueued(error: LockBackendError): void {
    const places = this.queued ?? []
    this.queued = undefined
    for (const place of places) {
      place.state = "gone"
      place.settle(Exit.fail(error))
    }
  }
}

/**
 * The decision to wait and the place in line are one synchronous step, because Effect may yield between any two.
 * `undefined`: the key is taken in this process, and the caller does not want to wait.
 */
export const enter = (lines: Map<string, Line>, key: string, wait: boolean): Place | undefined => {
  let line = lines.get(key)
  if (line === undefined) {
    line = new Line(lines, key)
    lines.set(key, line)
  }
  return wait || line.free ? line.enter() : undefined
}
