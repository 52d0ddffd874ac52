/**
 * The verbs over N servers: each asks all of them at once and goes on when enough have answered. What the others answer
 * later is still heard.
 */
import type { Grant, LockBackendError, Validity } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Asked, Claim } from "./RedlockAttempt.ts"
import type { RedlockNode } from "./RedlockNode.ts"
import { backendError } from "./RedlockNode.ts"
import type { Rules, Step, TakeVote } from "./RedlockQuorum.ts"
import { ballot, tally, verdict } from "./RedlockQuorum.ts"
import { remind } from "./RedlockReminder.ts"
import type { HoldVote, Wish } from "./RedlockVerbs.ts"
import * as RedlockVerbs from "./RedlockVerbs.ts"
import { micros } from "./RedlockVerbs.ts"

/** What came of asking for a key. */
export type Taken =
  | { readonly _tag: "Granted", readonly grant: Grant }
  | { readonly _tag: "Refused", readonly isTie: boolean, readonly freeInMillis: number }
  | { readonly _tag: "Failed", readonly error: LockBackendError }

export interface Rounds {
  /**
   * Asks for the key. With a leader, that server is asked first, and the others only if it does not refuse: of those who
   * come at the same time it lets one through, where each would else get some servers and nobody enough.
   */
  readonly take: (claim: Claim, leader?: number) => Effect.Effect<Taken>
  /** Prolongs the lease; `none`: no majority can have us as its holder any more. */
  readonly prolong: (claim: Claim) => Effect.Effect<Option.Option<Validity>, LockBackendError>
  /** Gives back on every server, and voids what is still on its way; `false`: a majority did not have us. */
  readonly giveBack: (claim: Claim) => Effect.Effect<boolean, LockBackendError>
  /** The first server that seems to be up. */
  readonly leader: () => number
}

const isAbsence = ({ reason }: LockBackendError): boolean => reason === "Unreachable" || reason === "Timeout"

/** The errors of the servers as one: a refusal tells more than an absence. */
const failureOf = (operation: string, nodes: number, failures: ReadonlyArray<LockBackendError>): LockBackendError => {
  const worst = failures.find((error) => !isAbsence(error)) ?? failures.find(({ reason }) => reason === "Timeout") ??
    failures[0]
  const text = `${failures.length} of ${nodes} servers failed`
  const detail = worst?.detail === undefined ? text : `${text}; ${worst.detail}`
  return backendError(operation, worst?.reason ?? "Timeout", detail, worst?.cause)
}

const ignore = () => {}

const tooLate = backendError("acquire", "Timeout", "a majority answered only when the ttl was over")

export const make = Effect.fnUntraced(function*(
  nodes: ReadonlyArray<RedlockNode>,
  now: () => bigint,
  rules: Rules
): Effect.fn.Return<Rounds, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const majority = rules.majority(nodes.length)

  /** What to ask for at that time: tokens from the latest time on that any of the servers' clocks shows. */
  const wishAt = (time: bigint, ttl: string): Wish => {
    let clockAhead = Number.NEGATIVE_INFINITY
    for (const node of nodes) clockAhead = Math.max(clockAhead, node.clockAhead ?? clockAhead)
    return { least: `${Math.ceil(micros(time) + clockAhead)}`, ttl, clockAhead }
  }

  const take: Rounds["take"] = (claim, leader) =>
    Effect.callback((resume) => {
      const startedAt = now()
      const ttl = Duration.millis(claim.ttlMillis)
      const round = ballot(nodes.length, startedAt, Duration.toNanosUnsafe(ttl), rules)
      const wish = wishAt(startedAt, claim.lives[0])
      const failures: Array<LockBackendError> = []
      const onFailure = (error: LockBackendError) => {
        failures.push(error)
      }
      const fail = (error: LockBackendError) => resume(Effect.succeed({ _tag: "Failed", error }))

      const raise = (i: number, token: bigint) => {
        const asked = claim.nodes[i]
        if (asked === undefined) return
        RedlockVerbs.hold(claim, asked, token, onFailure, (vote) => {
          follow(round.raise(i, vote === "ours" ? "yes" : vote === "away" ? "away" : "no", now()))
        })
      }
      const follow = (step: Step): void => {
        switch (step._tag) {
          case "Raise":
            return step.nodes.forEach((i) => raise(i, step.token))
          case "Granted":
            claim.token = step.token
            return resume(
              Effect.succeed({ _tag: "Granted", grant: { validFrom: startedAt, ttl, fencingToken: step.token } })
            )
          case "Refused":
            return resume(Effect.succeed(step))
          case "Away":
            return fail(failureOf("acquire", nodes.length, failures))
          case "Late":
            return fail(tooLate)
          case "Open":
        }
      }
      const ask = (asked: Asked, onVote: (vote: TakeVote) => void) =>
        RedlockVerbs.take(claim, asked, wish, onFailure, onVote)
      const askAll = (except?: number) =>
        claim.nodes.forEach((asked, i) => {
          if (i !== except) ask(asked, (vote) => follow(round.take(i, vote, now())))
        })

      const first = leader === undefined ? undefined : claim.nodes[leader]
      if (leader === undefined || first === undefined) return askAll()
      ask(first, (vote) => {
        if (vote._tag === "Held") {
          return resume(Effect.succeed({ _tag: "Refused", isTie: false, freeInMillis: vote.millis }))
        }
        follow(round.take(leader, vote, now()))
        askAll(leader)
      })
    })

  const prolong: Rounds["prolong"] = (claim) =>
    Effect.callback((resume) => {
      const { token } = claim
      if (token === undefined || claim.isOver) return resume(Effect.succeedNone)
      const startedAt = now()
      const votes = tally(nodes.length)
      const failures: Array<LockBackendError> = []
      let isRenewed = false
      /** Servers that lost the key, for they were restarted, or were away when the others gave it to us. */
      let absent: Array<Asked> = []

      // Only where a majority has just said that it holds the key: so nobody else can have one.
      const restore = () => {
        const left = Math.floor(claim.ttlMillis - Number(now() - startedAt) / 1e6)
        const wish = { ...wishAt(startedAt, `${left}`), least: `${token}` }
        for (const asked of left < 1 ? [] : absent) {
          RedlockVerbs.take(claim, asked, wish, ignore, ignore)
        }
        absent = []
      }
      const conclude = () => {
        switch (verdict(votes, majority)) {
          case "open":
            return
          case "no":
            return resume(Effect.succeedNone)
          case "unknown":
            return resume(Effect.fail(failureOf("renew", nodes.length, failures)))
          case "yes":
            isRenewed = true
            resume(Effect.succeedSome({ validFrom: startedAt, ttl: Duration.millis(claim.ttlMillis) }))
        }
      }
      const hear = (i: number, asked: Asked, vote: HoldVote) => {
        votes.vote(i, vote === "ours" ? "yes" : vote === "away" ? "away" : "no")
        if (vote === "absent") absent.push(asked)
        if (!isRenewed) conclude()
        if (isRenewed) restore()
      }
      claim.nodes.forEach((asked, i) => {
        RedlockVerbs.hold(claim, asked, token, (error) => failures.push(error), (vote) => hear(i, asked, vote))
      })
    })

  const giveBack: Rounds["giveBack"] = (claim) =>
    Effect.callback((resume) => {
      claim.isOver = true
      const until = now() + BigInt(claim.ttlMillis) * 1_000_000n
      const votes = tally(nodes.length)
      const failures: Array<LockBackendError> = []

      const conclude = () => {
        const decision = verdict(votes, majority)
        if (decision === "yes" || decision === "no") return resume(Effect.succeed(decision === "yes"))
        if (decision === "open") return
        // Those who do not answer are a minority, but they may have made the difference.
        if (votes.yes() + votes.no() >= majority) return resume(Effect.succeed(true))
        if (votes.pending() === 0) resume(Effect.fail(failureOf("release", nodes.length, failures)))
      }
      const send = (asked: Asked, i: number) => {
        RedlockVerbs.release(claim, asked, (exit) => {
          if (Exit.isSuccess(exit)) {
            votes.vote(i, exit.value ? "yes" : "no")
            return conclude()
          }
          Option.map(Exit.findErrorOption(exit), (error) => failures.push(error))
          votes.vote(i, "away")
          conclude()
          if (asked.isReminded) return
          asked.isReminded = true
          const released = Effect.callback<boolean, LockBackendError>((resume) =>
            RedlockVerbs.release(claim, asked, resume)
          )
          fork(Effect.forkIn(remind(released, now, until), scope))
        })
      }
      claim.nodes.forEach((asked, i) => {
        if (asked.mayHold) send(asked, i)
        else votes.vote(i, "no")
      })
      conclude()
    })

  return { take, prolong, giveBack, leader: () => Math.max(0, nodes.findIndex((node) => node.seemsUp())) }
})
