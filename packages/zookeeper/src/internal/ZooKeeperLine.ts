/**
 * The verbs of a backend, over the places that attempts have in the line for a key.
 */
import type { Grant, LockBackend, LockRequest, Validity } from "@dlock/core/LockBackend"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { refused } from "./ZooKeeperError.ts"
import type { Parents } from "./ZooKeeperParents.ts"
import * as Path from "./ZooKeeperPath.ts"
import * as Place from "./ZooKeeperPlace.ts"
import { type Call, children, remove } from "./ZooKeeperRequest.ts"
import type { Lessee, Session } from "./ZooKeeperSession.ts"
import type { Talk } from "./ZooKeeperVerb.ts"

interface Attempt extends Place.Attempt, Lessee {
  /** Ends the wait for whoever stands before it. */
  wake: () => void
}

export interface Settings extends Place.Settings {
  readonly prefix: string
}

const uuid = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
const guidOf = (owner: string): string => uuid.exec(owner)?.[0] ?? crypto.randomUUID()

export const make = (
  session: Session,
  parents: Parents,
  talk: Talk,
  settings: Settings
): Pick<LockBackend["Service"], "tryAcquire" | "acquire" | "renew" | "release"> => {
  const { nowhere, prefix } = settings
  const places = Place.make(session, parents, talk, settings)
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
      czxid: undefined,
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

  const look = (attempt: Attempt) => talk.run("acquire", (verb) => places.look(attempt, verb))

  /** The wait for one node. It also ends when the connection does: the watch is gone, and has to be set again. */
  const untilChanged = (attempt: Attempt, node: string): Effect.Effect<void, LockBackendError> =>
    Effect.callback((resume) => {
      if (attempt.state === "over") return resume(Effect.void)
      const callOff = session.client().watch(
        node,
        (outcome) => resume(typeof outcome === "string" ? Effect.void : Effect.fail(refused("acquire", outcome.code)))
      )
      attempt.wake = () => {
        callOff()
        resume(Effect.void)
      }
      return Effect.sync(callOff)
    })

  /** Believes that the key is ours; `undefined`: look again. */
  const hold = (attempt: Attempt): Effect.Effect<Grant | undefined, LockBackendError> =>
    Effect.map(talk.validity("acquire"), (validity) => {
      const { czxid } = attempt
      if (attempt.epoch !== session.epoch() || attempt.state === "over" || czxid === undefined) return undefined
      attempt.state = "held"
      attempt.wasHeld = true
      session.lessees.add(attempt)
      return { ...validity, fencingToken: czxid }
    })

  const giveBack = (attempt: Attempt): Effect.Effect<boolean, LockBackendError> =>
    Effect.suspend(() => {
      attempt.state = "over"
      session.lessees.delete(attempt)
      attempt.wake()
      return Effect.map(talk.run("release", (verb) => places.leave(attempt, verb)), (wasOurs) => {
        if (attempts.delete(attempt.request.owner)) parents.leave(attempt.directory)
        return wasOurs
      })
    })

  /** A look at the line, without entering it. A server may tell what was; behind a write it tells what is. */
  const isOccupied = (request: LockRequest): Effect.Effect<boolean, LockBackendError> => {
    const directory = Path.directoryOf(prefix, request.key)
    const lookBehind = (...writes: ReadonlyArray<Call>) =>
      talk.run(
        "acquire",
        (verb) =>
          Effect.flatMap(talk.exchange(verb, () => [...writes, children(directory)]), (replies) => {
            const names = Place.namesIn(replies.at(-1))
            return "reason" in names ? Effect.fail(names) : Effect.succeed(Path.contenders(names).length > 0)
          })
      )
    return Effect.flatMap(lookBehind(), (occupied) => occupied ? lookBehind(remove(nowhere)) : Effect.succeed(false))
  }

  /** Looks until the key is ours. `behind` says what becomes of it while another node stands before ours. */
  const untilHeld = <A>(
    attempt: Attempt,
    behind: (
      node: string,
      lookAgain: Effect.Effect<A | Grant, LockBackendError>
    ) => Effect.Effect<A | Grant, LockBackendError>
  ): Effect.Effect<A | Grant, LockBackendError> =>
    Effect.flatMap(look(attempt), (sight) => {
      const lookAgain = Effect.suspend(() => untilHeld(attempt, behind))
      if (sight === "not in line") return lookAgain
      if (sight.before !== undefined) return behind(Place.nodeIn(attempt.directory, sight.before), lookAgain)
      return Effect.flatMap(hold(attempt), (grant) => grant === undefined ? lookAgain : Effect.succeed(grant))
    })

  const take = (request: LockRequest): Effect.Effect<Option.Option<Grant>, LockBackendError> => {
    if (givenBack.has(request)) return Effect.succeedNone
    const attempt = begin(request)
    return Effect.map(
      untilHeld<undefined>(attempt, () => Effect.as(giveBack(attempt), undefined)),
      Option.fromUndefinedOr
    )
  }

  const wait = (request: LockRequest): Effect.Effect<Grant, LockBackendError> => {
    if (givenBack.has(request)) return Effect.fail(Place.givenBack())
    const attempt = begin(request)
    return untilHeld<never>(attempt, (node, lookAgain) => Effect.andThen(untilChanged(attempt, node), lookAgain))
  }

  return {
    tryAcquire: (request) =>
      Effect.suspend(() =>
        attempts.has(request.owner)
          ? take(request)
          : Effect.flatMap(isOccupied(request), (occupied) => occupied ? Effect.succeedNone : take(request))
      ),
    acquire: (request) => Effect.suspend(() => wait(request)),
    renew: (request) =>
      Effect.suspend(() => {
        const attempt = attempts.get(request.owner)
        const isHeld = () => attempt?.state === "held" && attempt.epoch === session.epoch()
        if (!isHeld()) return Effect.succeedNone
        return Effect.map(
          talk.validity("renew"),
          (validity): Option.Option<Validity> => isHeld() ? Option.some(validity) : Option.none()
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
