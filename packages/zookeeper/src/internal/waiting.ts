/**
 * A request's node in the server's line: ephemeral, in the order of the numbers that the server gave. The request whose
 * node is the first holds the key.
 *
 * A `create` whose reply was lost is never repeated blindly. Its node is looked for by the GUID in its name, behind a
 * write on the connection that is there now. By then the server has carried out that `create` or never will: on one
 * connection it works in order; when a session moves to a new connection the old one is closed, and what the old server
 * had passed on before is ahead of the write; a late request of the old server is refused, because the session has moved.
 */
import { Timers } from "@dlock/core/backend"
import type { Grant } from "@dlock/core/LockBackend"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Effect from "effect/Effect"
import { ask, askOnce, repeat, validity } from "./calls.ts"
import type { Watched } from "./client.ts"
import { codes, errors, passes, refused } from "./errors.ts"
import { begin, end, type Entry, type Line } from "./holds.ts"
import * as names from "./names.ts"
import { children, createInLine, read, remove, type Reply, write } from "./requests.ts"
import type { Session } from "./session.ts"

/** Where a request stands as of a transaction. */
interface Sight {
  /** The nodes before its own, the nearest first, two at most. */
  readonly ahead: ReadonlyArray<string>
  readonly zxid: bigint
}

/** The node that a waiter waits for. */
export interface Ahead {
  readonly node: string
  readonly isHolder: boolean
}

/** The first waiter tells the holder that it waits after this time, because the holder may have listened before it came. */
const patience = 100

/**
 * Before a waiter looks again whose watch was refused for now; twice as long with each that is refused, up to the longest.
 * Milliseconds.
 */
const shortestPause = 20
const longestPause = 500

/** The names in an answered list; none when the parent does not exist. */
const namesIn = (operation: string, reply: Reply | undefined): Effect.Effect<ReadonlyArray<string>, LockBackendError> =>
  reply?.code === codes.ok || reply?.code === codes.noNode
    ? Effect.succeed(reply.children)
    : Effect.fail(refused(operation, reply?.code))

const nodeRemoved = errors.rejected("acquire", { detail: "its node, or those above it, are removed again and again" })

/** A node in line, and whose it is. */
export interface Contender {
  readonly node: string
  readonly owner: string
}

/** The nodes of these names, in the order of the transactions that created them, as of a transaction. */
const contendersOf = (
  session: Session,
  operation: string,
  directory: string,
  inLine: ReadonlyArray<string>
): Effect.Effect<{ readonly contenders: ReadonlyArray<Contender>, readonly zxid: bigint }, LockBackendError> =>
  Effect.map(
    ask(session, operation, ...inLine.map((name) => read(names.nodeIn(directory, name)))),
    (replies) => {
      const found = inLine.flatMap((name, i) => {
        const reply = replies[i]
        if (reply === undefined || reply.code === codes.noNode) return []
        return [{ node: names.nodeIn(directory, name), owner: names.ownerOf(name, reply.data), czxid: reply.czxid }]
      })
      const contenders = found.toSorted((a, b) => a.czxid < b.czxid ? -1 : 1)
      return { contenders, zxid: replies.at(-1)?.zxid ?? 0n }
    }
  )

/** A write that has no effect: the leader has to agree to it, and reads behind it tell what is. */
export const barrier = ({ settings }: Session) => remove(settings.nowhere)

/** The names of the holder and the waiters. A server may tell what was: `isCurrent` asks for what is. */
export const namesInLine = (
  session: Session,
  operation: string,
  directory: string,
  isCurrent: boolean
): Effect.Effect<ReadonlyArray<string>, LockBackendError> => {
  const list = children(directory)
  const asked = isCurrent ? ask(session, operation, barrier(session), list) : ask(session, operation, list)
  return Effect.map(Effect.flatMap(asked, (replies) => namesIn(operation, replies.at(-1))), names.contenders)
}

/** The holder and the waiters, in order. */
export const contendersInLine = (
  session: Session,
  operation: string,
  directory: string,
  isCurrent: boolean
): Effect.Effect<ReadonlyArray<Contender>, LockBackendError> =>
  Effect.flatMap(
    namesInLine(session, operation, directory, isCurrent),
    (inLine) => Effect.map(contendersOf(session, operation, directory, inLine), ({ contenders }) => contenders)
  )

// ---------------------------------------------------------------------------------------------------------------------
// Entering the line
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Stands in line until the request is the first and the session is known to live. `behind` says what to do while another
 * node stands before its own.
 */
export const standInLine = <A extends string>(
  line: Line,
  entry: Entry,
  behind: (ahead: Ahead) => Effect.Effect<A | undefined, LockBackendError>
): Effect.Effect<Grant | A, LockBackendError> =>
  Effect.flatMap(
    repeat(line.session, (left) => look(line, entry, left), nodeRemoved),
    ({ ahead: [nearest, ...others], zxid }): Effect.Effect<Grant | A, LockBackendError> => {
      if (nearest === undefined) {
        return Effect.flatMap(
          validity(line.session, "acquire"),
          (validity) =>
            entry.epoch === line.session.epoch
              ? Effect.succeed(begin(line, entry, validity, zxid))
              : standInLine(line, entry, behind)
        )
      }
      return Effect.flatMap(
        behind({ node: names.nodeIn(entry.directory, nearest), isHolder: others.length === 0 }),
        (end) => end === undefined ? standInLine(line, entry, behind) : Effect.succeed(end)
      )
    }
  )

/** What was created in an earlier session is gone, and what was sent in it comes too late. */
const forgetEarlierSession = ({ session }: Line, entry: Entry): void => {
  if (entry.epoch === session.epoch) return
  entry.epoch = session.epoch
  entry.guid = crypto.randomUUID()
  entry.node = undefined
  entry.isUnknown = false
}

/** Takes a place at the end of the line if the request has none, and looks where it stands. */
const look = (line: Line, entry: Entry, left: number): Effect.Effect<Sight, LockBackendError> =>
  Effect.suspend(() => {
    forgetEarlierSession(line, entry)
    if (entry.isUnknown) return Effect.andThen(resolve(line, entry, left), look(line, entry, left))
    if (entry.node === undefined) return enter(line, entry, left)
    return Effect.flatMap(
      askOnce(line.session, "acquire", left, () => [children(entry.directory)]),
      ([listed]) => sightOf(line, entry, listed)
    )
  })

const enter = (line: Line, entry: Entry, left: number): Effect.Effect<Sight, LockBackendError> => {
  const { acl, parents, session } = line
  const { directory, request } = entry
  const calls = () => {
    forgetEarlierSession(line, entry)
    entry.isUnknown = true
    const path = names.nodeIn(directory, names.protectedName(entry.guid))
    const own = createInLine(path, request.owner, acl, (reply) => {
      if (reply === undefined || passes(reply.code)) return
      entry.isUnknown = false
      if (reply.code === codes.ok) entry.node = reply.path
    })
    return [...parents.missing(directory), own, children(directory)]
  }
  return Effect.flatMap(
    askOnce(session, "acquire", left, calls),
    (replies): Effect.Effect<Sight, LockBackendError> => {
      const created = replies.at(-2)?.code
      if (created === codes.ok) {
        parents.found(directory)
        return sightOf(line, entry, replies.at(-1))
      }
      if (created !== codes.noNode) return Effect.fail(refused("acquire", created))
      return Effect.fail(parents.vanished(directory, replies.slice(0, -2)) ?? nodeRemoved)
    }
  )
}

const sightOf = (
  { session }: Line,
  entry: Entry,
  listed: Reply | undefined
): Effect.Effect<Sight, LockBackendError> =>
  Effect.flatMap(namesIn("acquire", listed), (all): Effect.Effect<Sight, LockBackendError> => {
    const own = entry.node === undefined ? "" : names.nameOf(entry.node)
    if (!all.includes(own)) {
      entry.node = undefined
      return Effect.fail(nodeRemoved)
    }
    if (!names.hasOverflowed(all)) {
      return Effect.succeed({ ahead: names.ahead(all, own), zxid: listed?.zxid ?? 0n })
    }
    return Effect.flatMap(
      contendersOf(session, "acquire", entry.directory, names.contenders(all)),
      ({ contenders, zxid }): Effect.Effect<Sight, LockBackendError> => {
        const own = contenders.findIndex(({ node }) => node === entry.node)
        if (own === -1) return Effect.fail(nodeRemoved)
        const ahead = contenders.slice(Math.max(own - 2, 0), own).map(({ node }) => names.nameOf(node))
        return Effect.succeed({ ahead: ahead.toReversed(), zxid })
      }
    )
  })

/** Finds out what became of a `create` without a reply. */
const resolve = ({ session }: Line, entry: Entry, left: number): Effect.Effect<void, LockBackendError> =>
  Effect.flatMap(
    askOnce(session, "acquire", left, () => [barrier(session), children(entry.directory)]),
    ([, listed]) =>
      Effect.map(namesIn("acquire", listed), (all) => {
        if (!entry.isUnknown) return
        entry.isUnknown = false
        const name = all.find((name) => names.isProtected(name, entry.guid))
        entry.node = name === undefined ? undefined : names.nodeIn(entry.directory, name)
      })
  )

/**
 * How one request waits until a node is gone. It also ends with the connection: the watch is gone, and has to be set again.
 * A holder learns of the first waiter by a write to its node: to write what it says already changes nothing but its version.
 */
export const waitBehind = ({ session }: Line): (ahead: Ahead) => Effect.Effect<undefined, LockBackendError> => {
  let pause = shortestPause
  const afterPause = Effect.suspend(() => {
    const current = pause
    pause = Math.min(2 * pause, longestPause)
    return Effect.as(Effect.sleep(current), undefined)
  })
  return ({ isHolder, node }) =>
    Effect.callback((resume) => {
      const { client, timers } = session
      let text: string | undefined
      const tell = Timers.timer(() => client.send([write(node, text ?? "")], () => {}))
      let unwatch: (() => void) | undefined
      const watch = (): void => {
        unwatch = client.watch(node, onEnd, ({ data }) => {
          pause = shortestPause
          if (text === undefined && isHolder) timers.set(tell, timers.now() + patience)
          text = data
        })
      }
      const onEnd = (outcome: Watched): void => {
        if (outcome === "changed") return watch()
        timers.clear(tell)
        if (typeof outcome === "string") return resume(Effect.undefined)
        resume(passes(outcome.code) ? afterPause : Effect.fail(refused("acquire", outcome.code)))
      }
      watch()
      return Effect.sync(() => {
        timers.clear(tell)
        unwatch?.()
      })
    })
}

// ---------------------------------------------------------------------------------------------------------------------
// Leaving the line
// ---------------------------------------------------------------------------------------------------------------------

/** Leaves the line, and tells what became of the hold. */
export const leaveLine = (
  line: Line,
  entry: Entry
): Effect.Effect<"released" | "gone" | "unknown", LockBackendError> => {
  end(line, entry)
  return repeat(line.session, (left) => {
    forgetEarlierSession(line, entry)
    return entry.isUnknown
      ? Effect.andThen(resolve(line, entry, left), Effect.suspend(() => removeNode(line, entry, left)))
      : removeNode(line, entry, left)
  })
}

const removeNode = (
  { session }: Line,
  entry: Entry,
  left: number
): Effect.Effect<"released" | "gone" | "unknown", LockBackendError> => {
  const { node, removalSent } = entry
  if (node === undefined) return Effect.succeed("gone")
  const calls = () => {
    entry.removalSent = true
    return [remove(node)]
  }
  return Effect.flatMap(askOnce(session, "release", left, calls), ([reply]) => {
    if (reply?.code !== codes.ok && reply?.code !== codes.noNode) return Effect.fail(refused("release", reply?.code))
    if (!entry.wasGranted) return Effect.succeed("gone" as const)
    if (reply.code === codes.ok) return Effect.succeed("released" as const)
    // An earlier removal was not answered: it removed the node, or found that it was gone.
    return Effect.succeed(removalSent ? "unknown" as const : "gone" as const)
  })
}
