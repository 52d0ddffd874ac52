/**
 * The line for a key: one ephemeral node for each attempt, in the order of the numbers that the server gave them. Who
 * has nobody before them holds the key; who has somebody watches that one node.
 *
 * A `create` whose reply was lost is never repeated blindly. Its node is looked for by the GUID in its name, behind a
 * write on the connection that is there now. By then the server has carried out that `create` or never will: on one
 * connection it works in order; a session that comes with a new connection loses the old one, and what that one had
 * handed on before is ahead of the write; another server's late request is refused, because the session has moved.
 */
import type { Grant, LockRequest, Validity } from "@dlock/core/LockBackend"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { failed, refused, type Unanswered } from "./ZooKeeperError.ts"
import type { Parents } from "./ZooKeeperParents.ts"
import * as Path from "./ZooKeeperPath.ts"
import {
  type Acl,
  type Call,
  children,
  codes,
  create,
  createInLine,
  exists,
  remove,
  type Reply
} from "./ZooKeeperRequest.ts"
import type { Lessee, Session } from "./ZooKeeperSession.ts"
import type { Run, Verb } from "./ZooKeeperVerb.ts"

/** One attempt, from the first request to the answered give-back. */
interface Attempt extends Lessee {
  readonly request: LockRequest
  readonly directory: string
  readonly guid: string
  /** The session of its node. */
  epoch: number
  /** The path of its node. */
  node: string | undefined
  /** A `create` was sent, and its outcome is not known. */
  inDoubt: boolean
  fencingToken: bigint
  state: "asking" | "held" | "lost" | "over"
  wasHeld: boolean
  removalSent: boolean
  /** Ends the wait for whoever stands before it. */
  wake: () => void
}

/** What an attempt sees: who stands directly before it, nobody, or that it is not in line itself. */
type Sight = { readonly before: string | undefined } | "not in line"

type Step<A> = Effect.Effect<A, Unanswered | LockBackendError>

export interface Line {
  readonly tryAcquire: (request: LockRequest) => Effect.Effect<Option.Option<Grant>, LockBackendError>
  readonly acquire: (request: LockRequest) => Effect.Effect<Grant, LockBackendError>
  readonly renew: (request: LockRequest) => Effect.Effect<Option.Option<Validity>, LockBackendError>
  readonly release: (request: LockRequest) => Effect.Effect<boolean, LockBackendError>
}

export interface Settings {
  readonly prefix: string
  readonly acl: Acl
  /** A path that never exists. */
  readonly nowhere: string
}

const uuid = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
const guidOf = (owner: string): string => uuid.exec(owner)?.[0] ?? crypto.randomUUID()

const wasGivenBack = () => failed("acquire", "Rejected", "this attempt was given back")

const nodeIn = (directory: string, name: string): string => `${directory}/${name}`
const nameOf = (node: string): string => node.slice(node.lastIndexOf("/") + 1)

/** The names in a list that was asked for; none when the parent is not there. */
const namesIn = (reply: Reply | undefined): Step<ReadonlyArray<string>> => {
  if (reply === undefined) return Effect.fail(failed("acquire", "Protocol", "an answer is missing"))
  const { children, code } = reply
  return code === codes.ok || code === codes.noNode ? Effect.succeed(children) : Effect.fail(refused("acquire", code))
}

export const make = (session: Session, parents: Parents, run: Run, settings: Settings): Line => {
  const { acl, nowhere, prefix } = settings
  const attempts = new Map<string, Attempt>()
  // The same request object comes with every verb of an attempt.
  const givenBack = new WeakSet<LockRequest>()

  const begin = (request: LockRequest): Attempt => {
    const known = attempts.get(request.owner)
    if (known !== undefined) return known
    const attempt: Attempt = {
      request,
      directory: Path.directoryOf(prefix, request.key),
      guid: guidOf(request.owner),
      epoch: 0,
      node: undefined,
      inDoubt: false,
      fencingToken: 0n,
      state: "asking",
      wasHeld: false,
      removalSent: false,
      wake: () => {},
      onLost: (reason) => {
        if (attempt.state === "held") attempt.state = "lost"
        request.onLost(reason)
      }
    }
    attempts.set(request.owner, attempt)
    parents.enter(attempt.directory)
    return attempt
  }

  const end = (attempt: Attempt): void => {
    if (!attempts.delete(attempt.request.owner)) return
    parents.leave(attempt.directory)
  }

  /** What was created in an earlier session is gone, and what was sent in it comes too late. */
  const forgetEarlierSession = (attempt: Attempt): void => {
    if (attempt.epoch === session.epoch()) return
    attempt.node = undefined
    attempt.inDoubt = false
  }

  /** Who stands directly before the attempt, by the transactions that created the nodes. */
  const predecessorByTransaction = (attempt: Attempt, names: ReadonlyArray<string>, { exchange }: Verb) =>
    Effect.map(exchange(() => names.map((name) => exists(nodeIn(attempt.directory, name)))), (replies) => {
      let nearest: string | undefined
      let latest = 0n
      for (const [i, { code, czxid }] of replies.entries()) {
        if (code !== codes.ok || czxid >= attempt.fencingToken || czxid <= latest) continue
        nearest = names[i]
        latest = czxid
      }
      return nearest
    })

  const look = (attempt: Attempt, listed: Reply | undefined, verb: Verb): Step<Sight> =>
    Effect.flatMap(namesIn(listed), (names): Step<Sight> => {
      if (attempt.node === undefined) return Effect.succeed("not in line")
      return Path.hasOverflowed(names)
        ? Effect.map(predecessorByTransaction(attempt, Path.contenders(names), verb), (before) => ({ before }))
        : Effect.succeed({ before: Path.predecessor(names, nameOf(attempt.node)) })
    })

  /** Takes a place at the end of the line, and looks. */
  const enter = (attempt: Attempt, verb: Verb): Step<Sight> => {
    const { directory, guid, request } = attempt
    const ancestors = parents.missing(directory)
    const place = createInLine(nodeIn(directory, Path.protectedName(guid)), request.owner, acl, (reply) => {
      if (reply === undefined) return
      attempt.inDoubt = false
      if (reply.code !== codes.ok) return
      attempt.node = reply.path
      attempt.fencingToken = reply.zxid
    })
    const calls = () => {
      attempt.epoch = session.epoch()
      attempt.inDoubt = true
      return [...ancestors.map((path) => create(path, acl)), place, children(directory)]
    }
    return Effect.flatMap(verb.exchange(calls), (replies) => {
      const [listed, created, ...made] = replies.toReversed()
      if (created?.code === codes.ok) {
        parents.found(directory)
        return look(attempt, listed, verb)
      }
      if (created?.code !== codes.noNode) return Effect.fail(refused("acquire", created?.code ?? codes.ok))
      parents.vanished(directory)
      // An ancestor that could not be made, but for those that are there already or were removed again by somebody.
      const refusal = made.find(({ code }) => code !== codes.ok && code !== codes.nodeExists && code !== codes.noNode)
      return refusal === undefined ? Effect.succeed("not in line") : Effect.fail(refused("acquire", refusal.code))
    })
  }

  /** Looks at the own node, too: somebody may have removed it, or it is a remnant of a session that is about to end. */
  const lookAgain = (attempt: Attempt, node: string, verb: Verb): Step<Sight> =>
    Effect.flatMap(verb.exchange(() => [exists(node), children(attempt.directory)]), ([own, listed]) => {
      if (own?.code === codes.ok && own.ephemeralOwner === session.client().sessionId()) {
        attempt.fencingToken = own.czxid
      } else if (own?.code === codes.ok || own?.code === codes.noNode) {
        attempt.node = undefined
      } else {
        return Effect.fail(refused("acquire", own?.code ?? codes.ok))
      }
      return look(attempt, listed, verb)
    })

  /** Finds out what became of a \`create\` without a reply. */
  const resolve = (attempt: Attempt, { exchange }: Verb): Step<void> =>
    exchange(() => [remove(nowhere), children(attempt.directory)]).pipe(
      Effect.flatMap(([, listed]) => namesIn(listed)),
      Effect.map((names) => {
        if (!attempt.inDoubt) return
        attempt.inDoubt = false
        const name = names.find((name) => Path.isProtected(name, attempt.guid))
        if (name !== undefined) attempt.node = nodeIn(attempt.directory, name)
      })
    )

  const step = (attempt: Attempt) => (verb: Verb): Step<Sight> =>
    Effect.suspend(() => {
      forgetEarlierSession(attempt)
      if (attempt.state === "over") return Effect.fail(wasGivenBack())
      if (attempt.inDoubt) return Effect.andThen(resolve(attempt, verb), step(attempt)(verb))
      return attempt.node === undefined ? enter(attempt, verb) : lookAgain(attempt, attempt.node, verb)
    })

  /** The wait for one node. It also ends when the connection does: the watch is gone, and has to be set again. */
  const untilChanged = (attempt: Attempt, node: string): Effect.Effect<void, LockBackendError> =>
    Effect.callback((resume) => {
      attempt.wake = () => resume(Effect.void)
      return Effect.sync(
        session.client().watch(
          node,
          (outcome) => resume(typeof outcome === "string" ? Effect.void : Effect.fail(refused("acquire", outcome.code)))
        )
      )
    })

  /** Believes that the key is ours; \`undefined\`: look again. */
  const hold = (attempt: Attempt): Effect.Effect<Grant | undefined, LockBackendError> =>
    Effect.map(run("acquire", ({ validity }) => validity), (validity) => {
      if (attempt.epoch !== session.epoch() || attempt.state === "over") return undefined
      attempt.state = "held"
      attempt.wasHeld = true
      session.lessees.add(attempt)
      return { ...validity, fencingToken: attempt.fencingToken }
    })

  const removeNode = (attempt: Attempt, { exchange }: Verb): Step<boolean> =>
    Effect.suspend(() => {
      const { node } = attempt
      if (node === undefined || attempt.epoch !== session.epoch()) return Effect.succeed(false)
      const calls = () => {
        attempt.removalSent = true
        return [remove(node)]
      }
      const sentBefore = attempt.removalSent
      return Effect.flatMap(exchange(calls), ([reply]) => {
        if (reply?.code === codes.ok) return Effect.succeed(attempt.wasHeld)
        // An earlier removal, whose reply was lost.
        if (reply?.code === codes.noNode) return Effect.succeed(attempt.wasHeld && sentBefore)
        return Effect.fail(refused("release", reply?.code ?? codes.ok))
      })
    })

  const giveBack = (attempt: Attempt): Effect.Effect<boolean, LockBackendError> =>
    Effect.suspend(() => {
      attempt.state = "over"
      session.lessees.delete(attempt)
      attempt.wake()
      const remove = run("release", (verb) =>
        Effect.suspend(() => {
          forgetEarlierSession(attempt)
          return attempt.inDoubt
            ? Effect.andThen(resolve(attempt, verb), removeNode(attempt, verb))
            : removeNode(attempt, verb)
        }))
      return Effect.tap(remove, () => Effect.sync(() => end(attempt)))
    })

  /** A look at the line, without entering it. A server may tell what was; behind a write it tells what is. */
  const isOccupied = (request: LockRequest): Effect.Effect<boolean, LockBackendError> => {
    const directory = Path.directoryOf(prefix, request.key)
    const lookBehind = (...writes: ReadonlyArray<Call>) =>
      run(
        "acquire",
        ({ exchange }) =>
          Effect.flatMap(exchange(() => [...writes, children(directory)]), (replies) =>
            Effect.map(namesIn(replies.at(-1)), (names) => Path.contenders(names).length > 0))
      )
    return Effect.flatMap(lookBehind(), (occupied) => occupied ? lookBehind(remove(nowhere)) : Effect.succeed(false))
  }

  return {
    tryAcquire: Effect.fnUntraced(function*(request) {
      if (!attempts.has(request.owner) && (yield* isOccupied(request))) return Option.none()
      if (givenBack.has(request)) return Option.none()
      const attempt = begin(request)
      while (true) {
        const sight = yield* run("acquire", step(attempt))
        if (sight === "not in line") continue
        if (sight.before !== undefined) {
          yield* giveBack(attempt)
          return Option.none()
        }
        const grant = yield* hold(attempt)
        if (grant !== undefined) return Option.some(grant)
      }
    }),
    acquire: Effect.fnUntraced(function*(request) {
      if (givenBack.has(request)) return yield* Effect.fail(wasGivenBack())
      const attempt = begin(request)
      while (true) {
        const sight = yield* run("acquire", step(attempt))
        if (sight === "not in line") continue
        if (sight.before !== undefined) {
          yield* untilChanged(attempt, nodeIn(attempt.directory, sight.before))
          continue
        }
        const grant = yield* hold(attempt)
        if (grant !== undefined) return grant
      }
    }),
    renew: (request) =>
      Effect.suspend(() => {
        const attempt = attempts.get(request.owner)
        const isHeld = () => attempt?.state === "held" && attempt.epoch === session.epoch()
        if (!isHeld()) return Effect.succeedNone
        return Effect.map(
          run("renew", ({ validity }) => validity),
          (validity) => isHeld() ? Option.some(validity) : Option.none()
        )
      }),
    release: (request) =>
      Effect.suspend(() => {
        givenBack.add(request)
        const attempt = attempts.get(request.owner)
        return attempt === undefined ? Effect.succeed(false) : giveBack(attempt)
      })
  }
}
