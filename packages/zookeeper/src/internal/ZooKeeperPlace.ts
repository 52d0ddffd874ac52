/**
 * An attempt's place in the line: one ephemeral node, in the order of the numbers that the server gave. Who has nobody
 * before them holds the key.
 *
 * A `create` whose reply was lost is never repeated blindly. Its node is looked for by the GUID in its name, behind a
 * write on the connection that is there now. By then the server has carried out that `create` or never will: on one
 * connection it works in order; a session that comes with a new connection loses the old one, and what that one had
 * handed on before is ahead of the write; another server's late request is refused, because the session has moved.
 */
import type { LockRequest } from "@dlock/core/LockBackend"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Effect from "effect/Effect"
import { failed, refused } from "./ZooKeeperError.ts"
import type { Parents } from "./ZooKeeperParents.ts"
import * as Path from "./ZooKeeperPath.ts"
import { type Acl, children, codes, create, createInLine, exists, remove, type Reply } from "./ZooKeeperRequest.ts"
import type { Session } from "./ZooKeeperSession.ts"
import type { Step, Talk, Verb } from "./ZooKeeperVerb.ts"

/** One attempt, from the first request to the answered give-back. */
export interface Attempt {
  readonly request: LockRequest
  readonly directory: string
  readonly guid: string
  /** The session of its node. */
  epoch: number
  /** The path of its node. */
  node: string | undefined
  /** A `create` was sent, and its outcome is not known. */
  inDoubt: boolean
  /** The transaction that created its node, when it is known. */
  czxid: bigint | undefined
  state: "asking" | "held" | "lost" | "over"
  wasHeld: boolean
  removalSent: boolean
}

/** What an attempt sees: who stands directly before it, nobody, or that it is not in line itself. */
export type Sight = { readonly before: string | undefined } | "not in line"

export interface Places {
  /** Takes a place at the end of the line if the attempt has none, and looks. */
  readonly look: (attempt: Attempt, verb: Verb) => Step<Sight>
  /** Leaves the line; `false`: there was no lease to give back any more. */
  readonly leave: (attempt: Attempt, verb: Verb) => Step<boolean>
}

export interface Settings {
  readonly acl: Acl
  /** A path that never exists. */
  readonly nowhere: string
}

export const nodeIn = (directory: string, name: string): string => `${directory}/${name}`
const nameOf = (node: string): string => node.slice(node.lastIndexOf("/") + 1)

/** This attempt gets nothing any more. */
export const givenBack = () => failed("acquire", "Rejected", "this attempt was given back")

/** The names in a list that was asked for, none when the parent is not there; an error when it was refused. */
export const namesIn = (reply: Reply | undefined): ReadonlyArray<string> | LockBackendError => {
  if (reply === undefined) return failed("acquire", "Protocol", "an answer is missing")
  return reply.code === codes.ok || reply.code === codes.noNode ? reply.children : refused("acquire", reply.code)
}

const isError = (names: ReadonlyArray<string> | LockBackendError): names is LockBackendError => "reason" in names

const notInLine: Step<Sight> = Effect.succeed("not in line")

export const make = (session: Session, parents: Parents, { exchange }: Talk, { acl, nowhere }: Settings): Places => {
  /** What was created in an earlier session is gone, and what was sent in it comes too late. */
  const forgetEarlierSession = (attempt: Attempt): void => {
    if (attempt.epoch === session.epoch()) return
    attempt.node = undefined
    attempt.inDoubt = false
  }

  /** Who stands directly before the attempt, by the transactions that created the nodes. */
  const predecessorByTransaction = (attempt: Attempt, names: ReadonlyArray<string>, verb: Verb): Step<Sight> =>
    Effect.map(exchange(verb, () => names.map((name) => exists(nodeIn(attempt.directory, name)))), (replies) => {
      const { czxid: own = 0n } = attempt
      let before: string | undefined
      let latest = 0n
      for (const [i, { code, czxid }] of replies.entries()) {
        if (code !== codes.ok || czxid >= own || czxid <= latest) continue
        before = names[i]
        latest = czxid
      }
      return { before }
    })

  const lookAt = (attempt: Attempt, listed: Reply | undefined, verb: Verb): Step<Sight> => {
    const names = namesIn(listed)
    if (isError(names)) return Effect.fail(names)
    const own = attempt.node === undefined ? "" : nameOf(attempt.node)
    if (!names.includes(own)) {
      attempt.node = undefined
      return notInLine
    }
    return Path.hasOverflowed(names)
      ? predecessorByTransaction(attempt, Path.contenders(names), verb)
      : Effect.succeed({ before: Path.predecessor(names, own) })
  }

  const enter = (attempt: Attempt, verb: Verb): Step<Sight> => {
    const { directory, guid, request } = attempt
    const ancestors = parents.missing(directory)
    const calls = () => {
      if (attempt.state === "over") return []
      attempt.epoch = session.epoch()
      attempt.inDoubt = true
      const own = createInLine(nodeIn(directory, Path.protectedName(guid)), request.owner, acl, (reply) => {
        if (reply === undefined) return
        attempt.inDoubt = false
        if (reply.code !== codes.ok) return
        attempt.node = reply.path
        attempt.czxid = reply.zxid
      })
      return [...ancestors.map((path) => create(path, acl)), own, children(directory)]
    }
    return Effect.flatMap(exchange(verb, calls), (replies): Step<Sight> => {
      if (attempt.state === "over") return Effect.fail(givenBack())
      const created = replies.at(-2)?.code
      if (created === codes.ok) {
        parents.found(directory)
        return lookAt(attempt, replies.at(-1), verb)
      }
      if (created !== codes.noNode) return Effect.fail(refused("acquire", created ?? codes.ok))
      parents.vanished(directory)
      // An ancestor that could not be made, but for those that are there already or were removed again by somebody.
      const refusal = replies.slice(0, -2).find(({ code }) =>
        code !== codes.ok && code !== codes.nodeExists && code !== codes.noNode
      )
      return refusal === undefined ? notInLine : Effect.fail(refused("acquire", refusal.code))
    })
  }

  /** Looks where a node stands that was found by its name, and whether it is not a remnant of a session about to end. */
  const lookAtFound = (attempt: Attempt, node: string, verb: Verb): Step<Sight> =>
    Effect.flatMap(exchange(verb, () => [exists(node), children(attempt.directory)]), ([own, listed]) => {
      if (own?.code === codes.ok && own.ephemeralOwner === session.client().sessionId()) {
        attempt.czxid = own.czxid
      } else if (own?.code === codes.ok || own?.code === codes.noNode) {
        attempt.node = undefined
        return notInLine
      } else {
        return Effect.fail(refused("acquire", own?.code ?? codes.ok))
      }
      return lookAt(attempt, listed, verb)
    })

  /** The own node is in the list, or somebody has removed it. */
  const lookAgain = (attempt: Attempt, node: string, verb: Verb): Step<Sight> =>
    attempt.czxid === undefined
      ? lookAtFound(attempt, node, verb)
      : Effect.flatMap(exchange(verb, () => [children(attempt.directory)]), ([listed]) => lookAt(attempt, listed, verb))

  /** Finds out what became of a `create` without a reply. */
  const resolve = (attempt: Attempt, verb: Verb): Step<void> =>
    Effect.flatMap(exchange(verb, () => [remove(nowhere), children(attempt.directory)]), ([, listed]) => {
      const names = namesIn(listed)
      if (isError(names)) return Effect.fail(names)
      if (!attempt.inDoubt) return Effect.void
      attempt.inDoubt = false
      const name = names.find((name) => Path.isProtected(name, attempt.guid))
      if (name === undefined) return Effect.void
      attempt.node = nodeIn(attempt.directory, name)
      attempt.czxid = undefined
      return Effect.void
    })

  const removeNode = (attempt: Attempt, verb: Verb): Step<boolean> => {
    const { node } = attempt
    if (node === undefined) return Effect.succeed(false)
    const sentBefore = attempt.removalSent
    const calls = () => {
      attempt.removalSent = true
      return [remove(node)]
    }
    return Effect.flatMap(exchange(verb, calls), ([reply]) => {
      if (reply?.code === codes.ok) return Effect.succeed(attempt.wasHeld)
      // An earlier removal, whose reply was lost.
      if (reply?.code === codes.noNode) return Effect.succeed(attempt.wasHeld && sentBefore)
      return Effect.fail(refused("release", reply?.code ?? codes.ok))
    })
  }

  const places: Places = {
    look: (attempt, verb) =>
      Effect.suspend(() => {
        forgetEarlierSession(attempt)
        if (attempt.state === "over") return Effect.fail(givenBack())
        if (attempt.inDoubt) return Effect.andThen(resolve(attempt, verb), places.look(attempt, verb))
        return attempt.node === undefined ? enter(attempt, verb) : lookAgain(attempt, attempt.node, verb)
      }),
    leave: (attempt, verb) =>
      Effect.suspend(() => {
        forgetEarlierSession(attempt)
        return attempt.inDoubt
          ? Effect.andThen(resolve(attempt, verb), Effect.suspend(() => removeNode(attempt, verb)))
          : removeNode(attempt, verb)
      })
  }
  return places
}
