/**
 * The verbs over N servers: each asks all of them at once and goes on when enough have answered. What the others answer
 * later is still heard.
 */
import type { Grant, LockBackendError, Released, Tokens, Validity } from "@dlock/core"
import { Errors } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Asked, Claim } from "./attempts.ts"
import type { RedlockNode } from "./node.ts"
import { errors, toError } from "./node.ts"
import type { Rules, Step, TakeVote } from "./quorum.ts"
import { ballot, countRaise, countTake, tally, verdict } from "./quorum.ts"
import * as requests from "./requests.ts"
import type { HoldVote, Wish } from "./requests.ts"

/** What came of asking for a key. */
export type Taken =
  | { readonly _tag: "Granted", readonly grant: Grant }
  | { readonly _tag: "Refused", readonly isTie: boolean, readonly freeInMillis: number }
  | { readonly _tag: "Failed", readonly error: LockBackendError }

/** The servers, and what decides. */
export interface Quorum {
  readonly nodes: ReadonlyArray<RedlockNode>
  readonly rules: Rules
  readonly majority: number
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
  readonly fork: (effect: Effect.Effect<unknown>) => Fiber.Fiber<unknown>
}

/** The errors of the servers as one: a refusal tells more than an absence. */
const failureOf = (operation: string, nodes: number, failures: ReadonlyArray<LockBackendError>): LockBackendError => {
  const worst = failures.find((error) => !Errors.passes(error)) ??
    failures.find(({ reason }) => reason === "Timeout") ??
    failures[0]
  const told = worst === undefined ? [] : [`${worst.address}: ${worst.detail ?? "no answer in time"}`]
  const detail = [`${failures.length} of ${nodes} servers failed`, ...told].join("; ")
  return errors.of(worst?.reason ?? "Timeout", operation, { detail })
}

const ignore = () => {}

const tooLate = errors.timeout("acquire", { detail: "a majority answered only when the ttl was over" })

/** The first server that seems to be up. */
export const leader = ({ nodes }: Quorum): number => Math.max(0, nodes.findIndex((node) => node.seemsUp))

/** What to ask for at that time: tokens from the latest time on that any of the servers' clocks shows. */
const wishAt = ({ nodes }: Quorum, time: number, ttl: string): Wish => {
  let clockAhead = Number.NEGATIVE_INFINITY
  for (const node of nodes) clockAhead = Math.max(clockAhead, node.clockAhead ?? clockAhead)
  return { least: `${Math.ceil(time * 1000 + clockAhead)}`, ttl, clockAhead }
}

/** The tokens up to the last one, as many as are wished for. */
const tokensOf = (first: bigint, last: bigint, spare: number): Tokens => {
  const most = Number(last - first)
  const given = Math.max(0, Math.min(Math.trunc(spare), most))
  return { first: last - BigInt(given), spare: given }
}

/**
 * Asks for the key, with so many spare tokens. With a leader, that server is asked first, and the others only if it does
 * not refuse: of the requests of one time it lets one through, where each would else get some servers and none
 * enough.
 */
export const take = (quorum: Quorum, claim: Claim, spare: number, leader?: number): Effect.Effect<Taken> =>
  Effect.callback((resume) => {
    const { nodes, now, rules } = quorum
    const startedAt = now()
    const round = ballot(nodes.length, startedAt, claim.ttl, rules)
    const wish = wishAt(quorum, startedAt, `${claim.ttl}`)
    const failures: Array<LockBackendError> = []
    const onFailure = (error: LockBackendError) => {
      failures.push(error)
    }
    const fail = (error: LockBackendError) => resume(Effect.succeed({ _tag: "Failed", error }))

    const raise = (i: number, token: bigint) => {
      const asked = claim.nodes[i]
      if (asked === undefined) return
      requests.hold(claim, asked, token, onFailure, (vote) => {
        follow(countRaise(round, i, vote === "ours" ? "yes" : vote === "away" ? "away" : "no", now()))
      })
    }
    const follow = (step: Step): void => {
      switch (step._tag) {
        case "Raise":
          return step.nodes.forEach((i) => raise(i, step.token))
        case "Granted": {
          claim.token = step.token
          const tokens = tokensOf(step.first, step.token, spare)
          return resume(Effect.succeed({ _tag: "Granted", grant: { validFrom: startedAt, ttl: claim.ttl, tokens } }))
        }
        case "Refused":
          return resume(Effect.succeed(step))
        case "Away":
          return fail(failureOf("acquire", nodes.length, failures))
        case "Late":
          return fail(tooLate)
        case "Open":
      }
    }
    const ask = (asked: Asked, onVote: (vote: TakeVote) => void) => requests.take(claim, asked, wish, onFailure, onVote)
    const askAll = (except?: number) =>
      claim.nodes.forEach((asked, i) => {
        if (i !== except) ask(asked, (vote) => follow(countTake(round, i, vote, now())))
      })

    const first = leader === undefined ? undefined : claim.nodes[leader]
    if (leader === undefined || first === undefined) return askAll()
    ask(first, (vote) => {
      if (vote._tag === "Held") {
        return resume(Effect.succeed({ _tag: "Refused", isTie: false, freeInMillis: vote.millis }))
      }
      follow(countTake(round, leader, vote, now()))
      askAll(leader)
    })
  })

/** Puts the key back on servers that lost it: only where a majority has just said that it holds it for us. */
const restore = (quorum: Quorum, claim: Claim, startedAt: number, absent: ReadonlyArray<Asked>): void => {
  const left = Math.floor(claim.ttl - (quorum.now() - startedAt))
  if (left < 1) return
  const wish = { ...wishAt(quorum, startedAt, `${left}`), least: `${claim.token}` }
  for (const asked of absent) requests.take(claim, asked, wish, ignore, ignore)
}

/**
 * Prolongs the grant; `none`: no majority can have us as its holder any more. With `spare` it brings new tokens: a majority
 * that holds the key for us lets no other owner have one, so all from ours to the new one are free.
 */
export const prolong = (
  quorum: Quorum,
  claim: Claim,
  spare?: number
): Effect.Effect<Option.Option<Validity>, LockBackendError> =>
  Effect.callback((resume) => {
    const { majority, nodes, now } = quorum
    const { token, ttl } = claim
    if (token === undefined || claim.isOver) return resume(Effect.succeedNone)
    const startedAt = now()
    const { least } = wishAt(quorum, startedAt, `${claim.ttl}`)
    const next = BigInt(least) > token ? BigInt(least) : token + 1n
    const last = spare === undefined ? token : next
    const votes = tally(nodes.length)
    const failures: Array<LockBackendError> = []
    let isRenewed = false
    /** Servers that lost the key: they were restarted, or away when the others gave it to us. */
    let absent: Array<Asked> = []

    const conclude = () => {
      switch (verdict(votes, majority)) {
        case "open":
          return
        case "no":
          return resume(Effect.succeedNone)
        case "unknown":
          return resume(Effect.fail(failureOf("renew", nodes.length, failures)))
        case "yes": {
          isRenewed = true
          claim.token = last
          const tokens = spare === undefined ? undefined : tokensOf(token + 1n, last, spare)
          resume(Effect.succeedSome({ validFrom: startedAt, ttl, tokens }))
        }
      }
    }
    const hear = (i: number, asked: Asked, vote: HoldVote) => {
      votes.vote(i, vote === "ours" ? "yes" : vote === "away" ? "away" : "no")
      if (vote === "absent") absent.push(asked)
      if (!isRenewed) conclude()
      if (!isRenewed) return
      restore(quorum, claim, startedAt, absent)
      absent = []
    }
    claim.nodes.forEach((asked, i) => {
      requests.hold(claim, asked, last, (error) => failures.push(error), (vote) => hear(i, asked, vote))
    })
  })

const firstPause = 50
const longestPause = 1000

/** Sends a release that a server did not answer again, until it does, or until the grant would have ended by itself. */
const remind = (quorum: Quorum, claim: Claim, asked: Asked, until: number): void => {
  if (asked.isReminded) return
  asked.isReminded = true
  const release = Effect.callback<Released, LockBackendError>((resume) => requests.release(claim, asked, resume))
  const again = (pause: number): Effect.Effect<void> =>
    Effect.andThen(
      Effect.sleep(pause),
      Effect.suspend(() =>
        quorum.now() >= until
          ? Effect.void
          : Effect.matchEffect(release, {
            onFailure: () => again(Math.min(pause * 2, longestPause)),
            onSuccess: () => Effect.void
          })
      )
    )
  quorum.fork(again(firstPause))
}

/** Releases on every server, and voids what is still on its way; `gone`: a majority did not have us. */
export const release = (quorum: Quorum, claim: Claim): Effect.Effect<Released, LockBackendError> =>
  Effect.callback((resume) => {
    claim.isOver = true
    const { majority, nodes } = quorum
    const until = quorum.now() + claim.ttl
    const votes = tally(nodes.length)
    const failures: Array<LockBackendError> = []
    let isUnknown = false

    const conclude = () => {
      const decision = verdict(votes, majority)
      if (decision === "yes") return resume(Effect.succeed("released"))
      if (decision === "no") return resume(Effect.succeed(isUnknown ? "unknown" : "gone"))
      if (decision === "open") return
      // The servers that do not answer are a minority, but they may have made the difference.
      if (votes.yes() + votes.no() >= majority) return resume(Effect.succeed("unknown"))
      if (votes.pending() === 0) resume(Effect.fail(failureOf("release", nodes.length, failures)))
    }
    const onExit = (i: number, asked: Asked, exit: Exit.Exit<Released, LockBackendError>) => {
      if (Exit.isSuccess(exit)) {
        if (exit.value === "unknown") isUnknown = true
        votes.vote(i, exit.value === "released" ? "yes" : "no")
        return conclude()
      }
      Option.map(Exit.findErrorOption(exit), (error) => failures.push(error))
      votes.vote(i, "away")
      conclude()
      remind(quorum, claim, asked, until)
    }
    claim.nodes.forEach((asked, i) => {
      if (asked.isKept || asked.unanswered > 0) requests.release(claim, asked, (exit) => onExit(i, asked, exit))
      else votes.vote(i, "no")
    })
    conclude()
  })

/** Fails unless a majority succeeds; tells what its servers answered. */
export const majorityOf = <A>(
  { majority, nodes }: Quorum,
  operation: string,
  ask: (node: RedlockNode) => Effect.Effect<A, LockBackendError>
): Effect.Effect<ReadonlyArray<A>, LockBackendError> =>
  Effect.flatMap(
    Effect.forEach(nodes, (node) => Effect.exit(ask(node)), { concurrency: "unbounded" }),
    (exits) => {
      const answers = exits.flatMap((exit) => Exit.isSuccess(exit) ? [exit.value] : [])
      if (answers.length >= majority) return Effect.succeed(answers)
      const failures = exits.flatMap((exit) => Option.toArray(Exit.findErrorOption(exit)))
      return Effect.fail(failureOf(operation, nodes.length, failures))
    }
  )

/** One command to one server. */
export const send = (
  node: RedlockNode,
  operation: string,
  command: string,
  args: ReadonlyArray<string>,
  limit: number
) =>
  Effect.mapBoth(node.connection.send(command, args, limit), {
    onFailure: (failure) => toError(node, operation, failure),
    onSuccess: ({ reply }) => reply
  })
