/**
 * The backend over N connections.
 */
import type { Inspection, LockBackend, LockBackendError } from "@dlock/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { ttlOf } from "../attempts.ts"
import * as names from "../names.ts"
import type { Attempt } from "./attempts.ts"
import { claimOf, isValueOf, keysOn, make as makeAttempt, nextClaim, ownerOf } from "./attempts.ts"
import type { RedlockNode } from "./node.ts"
import { backendName, connect, errors } from "./node.ts"
import { rules } from "./quorum.ts"
import * as rounds from "./rounds.ts"
import type { Quorum } from "./rounds.ts"
import * as scripts from "./scripts.ts"
import * as waiting from "./waiting.ts"

type Backend = LockBackend["Service"]

/** The time limits of a backend, in milliseconds. */
export interface Limits {
  readonly commandTimeout: number
  /** Default: a tenth of the ttl, within the bounds below. */
  readonly nodeTimeout?: number | undefined
}

/**
 * The bounds of the time that one server is waited for. As a majority decides, it matters only where the answer of a
 * server that hangs could still make the difference.
 */
const [shortest, longest] = [50, 250]

/** The longest wait for one server where all are asked, in milliseconds. */
const longestLook = 1000

/** What one server says of a key. */
interface Sight {
  readonly value: string | undefined
  readonly remaining: number
  readonly token: bigint
}

const look = (node: RedlockNode, key: string, limit: number): Effect.Effect<Sight, LockBackendError> => {
  const args = [scripts.inspect.source, "2", ...keysOn(node, key)]
  return Effect.flatMap(rounds.send(node, "inspect", "eval", args, limit), (reply) => {
    const [state, value, millis, token]: Array<unknown> = Array.isArray(reply) ? reply : []
    if ((state !== "held" && state !== "free") || typeof token !== "string" || !/^\d+$/.test(token)) {
      return Effect.fail(
        errors.protocol("inspect", { at: node.label, detail: `unexpected answer ${JSON.stringify(reply)}` })
      )
    }
    return Effect.succeed({
      value: state === "held" ? String(value) : undefined,
      remaining: Number(millis),
      token: BigInt(token)
    })
  })
}

/** The value that a majority has, if there is one, and what its servers say. */
const holderOf = ({ majority }: Quorum, sights: ReadonlyArray<Sight>) => {
  for (const { value } of sights) {
    const same = sights.filter((sight) => sight.value === value)
    if (value !== undefined && same.length >= majority) return Option.some({ value, sights: same })
  }
  return Option.none()
}

const inspect = Effect.fnUntraced(
  function*(quorum: Quorum, key: string, limit: number): Effect.fn.Return<Inspection, LockBackendError> {
    const sights = yield* rounds.majorityOf(quorum, "inspect", (node) => look(node, key, limit))
    const holder = Option.map(holderOf(quorum, sights), ({ sights, value }) => {
      const token = sights.reduce((highest, { token }) => token > highest ? token : highest, 0n)
      const remaining = Math.min(...sights.map(({ remaining }) => remaining))
      return { owner: ownerOf(value), ...(token > 0n && { token }), ...(remaining >= 0 && { remaining }) }
    })
    // There is no line.
    return { holder, waiting: [] }
  }
)

const revoke = Effect.fnUntraced(
  function*(quorum: Quorum, key: string, owner: string, limit: number): Effect.fn.Return<boolean, LockBackendError> {
    const sights = yield* rounds.majorityOf(quorum, "revoke", (node) => look(node, key, limit))
    const holder = Option.filter(holderOf(quorum, sights), ({ value }) => isValueOf(value, owner))
    if (Option.isNone(holder)) return false
    const claim = claimOf(quorum.nodes, key, holder.value.value, { ttl: limit, limit })
    for (const asked of claim.nodes) asked.isKept = true
    return (yield* rounds.release(quorum, claim)) === "released"
  }
)

const quorumOf = Effect.fnUntraced(function*(
  nodes: ReadonlyArray<RedlockNode>
): Effect.fn.Return<Quorum, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const clock = yield* Clock.Clock
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  return {
    nodes,
    rules,
    majority: rules.majority(nodes.length),
    now: () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6,
    fork: (effect) => fork(Effect.forkIn(effect, scope))
  }
})

export const make = Effect.fnUntraced(function*(
  nodes: ReadonlyArray<RedlockNode>,
  { commandTimeout, nodeTimeout }: Limits
): Effect.fn.Return<Backend, LockBackendError, Scope.Scope> {
  const quorum = yield* quorumOf(nodes)
  yield* connect(nodes, quorum.majority)

  const limitOf = (ttl: number): number =>
    Math.min(nodeTimeout ?? Math.min(longest, Math.max(shortest, ttl / 10)), ttl, commandTimeout)
  const lookLimit = Math.min(commandTimeout, longestLook)
  const means: waiting.Means = {
    quorum,
    nextClaim: (attempt) => nextClaim(nodes, attempt, limitOf),
    limit: ({ request }) => Math.min(commandTimeout, request.ttl)
  }
  const known = new WeakMap<object, Attempt>()
  const of = (request: Attempt["request"]): Attempt => {
    const attempt = known.get(request) ?? makeAttempt(request)
    known.set(request, attempt)
    return attempt
  }

  return {
    name: backendName,
    freedBy: "ttl",
    tellsWanted: false,
    check: (key, ttl) =>
      names.check(key, ttl) ??
        (rules.drift(ttl) >= ttl
          ? "the ttl is shorter than what the clocks of several servers may differ by"
          : undefined),
    tryAcquire: (request) => Effect.suspend(() => waiting.tryAcquire(means, of(request))),
    acquire: (request) => Effect.suspend(() => waiting.acquire(means, of(request))),
    renew: (request, { spare }) =>
      Effect.suspend(() => {
        const { claim, isOver } = of(request)
        if (claim === undefined || isOver) return Effect.succeedNone
        claim.ttl = ttlOf({ request })
        return rounds.prolong(quorum, claim, spare)
      }),
    release: (request) =>
      Effect.suspend(() => {
        const attempt = of(request)
        attempt.isOver = true
        return attempt.claim === undefined ? Effect.succeed("gone") : rounds.release(quorum, attempt.claim)
      }),
    inspect: (key) => inspect(quorum, key, lookLimit),
    revoke: (key, owner) => revoke(quorum, key, owner, lookLimit),
    ping: Effect.asVoid(
      rounds.majorityOf(
        quorum,
        "ping",
        (node) => rounds.send(node, "ping", "persist", [node.keyPrefix + names.ping], lookLimit)
      )
    )
  }
})
