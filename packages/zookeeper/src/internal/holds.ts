/**
 * What is known of a request, and what it holds: its tokens, and the watch on its node.
 */
import { Timers } from "@dlock/core/backend"
import type { Grant, LockRequest, Tokens, Validity } from "@dlock/core/LockBackend"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Effect from "effect/Effect"
import { ask } from "./calls.ts"
import { codes, refused } from "./errors.ts"
import * as names from "./names.ts"
import type { Parents } from "./parents.ts"
import { type Acl, children, write } from "./requests.ts"
import type { Holder, Session } from "./session.ts"

/** What the requests of one session share. */
export interface Line {
  readonly session: Session
  readonly parents: Parents
  readonly acl: Acl
}

/** What is known of a request, from its first message to the answered release. */
export interface Entry extends Holder {
  readonly request: LockRequest
  readonly directory: string
  /** In the name of its node: another one in each session, so that what an earlier session left is never taken for ours. */
  guid: string
  /** The session of its node. */
  epoch: number
  /** The path of its node. */
  node: string | undefined
  /** A `create` was sent, and its outcome is unknown. */
  isUnknown: boolean
  isHeld: boolean
  wasGranted: boolean
  removalSent: boolean
  /** How often this process wrote to the node. */
  writes: number
  /** Its tokens that are not given yet: from this one to before that one. */
  nextToken: bigint
  endToken: bigint
  /** Rings when the node is to be watched while it is held. */
  readonly watchTimer: Timers.Timer
  unwatch: () => void
}

/** A holder listens when its process has held the key for a turn: a lock that is held for less costs nothing. */
const turn = 20

/** Before a node is watched again whose watch ended with the connection. */
const reconnectPause = 250

/** A request that has sent nothing yet. */
export const entryOf = (line: Line, prefix: string, request: LockRequest): Entry => {
  const entry: Entry = {
    request,
    directory: names.directoryOf(prefix, request.key),
    guid: crypto.randomUUID(),
    epoch: line.session.epoch,
    node: undefined,
    isUnknown: false,
    isHeld: false,
    wasGranted: false,
    removalSent: false,
    writes: 0,
    nextToken: 0n,
    endToken: 0n,
    watchTimer: Timers.timer(() => watchHeld(line, entry)),
    unwatch: () => {},
    onLost: (reason) => {
      entry.isHeld = false
      request.onLost(reason)
    }
  }
  return entry
}

/**
 * A token is a transaction id and ten more bits: so a hold has as many tokens as it needs in a turn, all below those of
 * any later transaction. It fits in 63 bits until the servers have elected a leader two million times.
 */
const bits = 10n

/** Tokens of the transaction that the request knows of, if it has any left. */
const takeTokens = (entry: Entry, spare: number): Tokens | undefined => {
  const { endToken, nextToken: first } = entry
  if (first === endToken) return undefined
  const given = Math.min(spare, Number(endToken - first) - 1)
  entry.nextToken += BigInt(given + 1)
  return { first, spare: given }
}

const tokensOf = (entry: Entry, zxid: bigint, spare: number): Tokens => {
  entry.nextToken = zxid << bits
  entry.endToken = (zxid + 1n) << bits
  return takeTokens(entry, spare) ?? { first: zxid << bits, spare: 0 }
}

/** A write to the own node succeeds only while it is there: then the transaction belongs to this hold. */
export const moreTokens = (
  line: Line,
  entry: Entry,
  spare: number
): Effect.Effect<Tokens | undefined, LockBackendError> => {
  const { node, request } = entry
  const left = takeTokens(entry, spare)
  if (left !== undefined || node === undefined) return Effect.succeed(left)
  return Effect.flatMap(ask(line.session, "renew", write(node, request.owner)), ([reply]) => {
    if (reply?.code === codes.ok) {
      entry.writes += 1
      return Effect.succeed(tokensOf(entry, reply.zxid, spare))
    }
    if (reply?.code !== codes.noNode) return Effect.fail(refused("renew", reply?.code))
    loseNode(line, entry)
    return Effect.undefined
  })
}

/** The request holds the key as of a transaction. */
export const begin = ({ session }: Line, entry: Entry, validity: Validity, zxid: bigint): Grant => {
  entry.isHeld = true
  entry.wasGranted = true
  session.holders.add(entry)
  session.timers.set(entry.watchTimer, session.timers.now() + (entry.request.lingers === true ? 0 : turn))
  return { ...validity, tokens: tokensOf(entry, zxid, entry.request.spare) }
}

/** It does not, or no longer. */
export const end = ({ session }: Line, entry: Entry): void => {
  entry.isHeld = false
  session.holders.delete(entry)
  session.timers.clear(entry.watchTimer)
  entry.unwatch()
}

/** The server does not have the node any more. */
const loseNode = (line: Line, entry: Entry): void => {
  if (!entry.isHeld) return
  end(line, entry)
  entry.onLost("taken")
}

/** A holder learns that its node was removed by hand, and that another process waits: it looks, and is told by a write. */
const watchHeld = (line: Line, entry: Entry): void => {
  const { client, timers } = line.session
  const { directory, request } = entry
  if (!entry.isHeld || entry.node === undefined) return
  entry.unwatch = client.watch(
    entry.node,
    (outcome) => {
      if (!entry.isHeld) return
      if (outcome === "removed" || outcome === "absent") return loseNode(line, entry)
      timers.set(entry.watchTimer, timers.now() + (outcome === "changed" ? turn : reconnectPause))
    },
    ({ version }) => {
      if (version > entry.writes) return request.onWanted()
      client.send([children(directory)], (replies) => {
        if (entry.isHeld && names.contenders(replies?.[0]?.children ?? []).length > 1) request.onWanted()
      })
    }
  )
}
