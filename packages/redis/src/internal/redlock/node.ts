/**
 * One of the N servers: each request is sent once, and its answer awaited for a short while. A majority of them is enough
 * to begin with.
 */
import type { LockBackendError } from "@dlock/core"
import { Errors } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type { Connection } from "../client.ts"
import * as commands from "../commands.ts"
import type { Call, Outcome } from "../commands.ts"
import type { Failure } from "../errors.ts"
import { isAnswer } from "../errors.ts"
import type { Subscription } from "../subscription.ts"

/** What errors are called after. */
export const backendName = "redlock"

export const errors = Errors.make(backendName)

/** One server. */
export interface RedlockNode {
  /** How people know it. */
  readonly label: string
  readonly connection: Connection
  readonly subscription: Subscription
  /** What stands before every key on it. */
  readonly keyPrefix: string
  /** Whether it answered the last request that was due. */
  seemsUp: boolean
  /** Its clock minus our monotonic one, in µs, once that is known. */
  clockAhead: number | undefined
}

/** Asks at the end of this turn, once. `limit`: how long to wait for the answer, in milliseconds. */
export const ask = (node: RedlockNode, call: Call, limit: number, onOutcome: (outcome: Outcome) => void): void => {
  commands.call(node.connection.queue, call, limit, (outcome) => {
    // What was not sent shows nothing.
    if (call.isWanted?.() !== false || outcome._tag === "Answered") {
      node.seemsUp = outcome._tag === "Answered" || (outcome._tag === "Failed" && isAnswer(outcome.cause))
    }
    onOutcome(outcome)
  })
}

/** A failure of one server, with its name. */
export const toError = ({ connection }: RedlockNode, operation: string, failure: Failure): LockBackendError =>
  connection.toError(operation, failure)

/** For how long the others are waited for when it is decided. */
const grace = "250 millis"

/** What the servers have said so far. */
interface Roll {
  readonly failures: Array<LockBackendError>
  /** The nodes that answered, by the process that runs there. */
  readonly labels: Map<string, string>
  there: number
  twice: string | undefined
}

const open = (node: RedlockNode, roll: Roll): Effect.Effect<void> =>
  Effect.match(node.connection.open, {
    onSuccess: ({ clockAhead, runId }) => {
      node.clockAhead = clockAhead
      roll.there++
      if (runId === undefined) return
      const other = roll.labels.get(runId)
      if (other !== undefined) roll.twice = `${other} and ${node.label} are one server, which has one vote`
      roll.labels.set(runId, node.label)
    },
    onFailure: (failure) => {
      roll.failures.push(toError(node, "connect", failure))
    }
  })

/**
 * Connects to all of them, and fails when there is no majority. One that is away is connected to when it comes.
 */
export const connect = Effect.fnUntraced(function*(
  nodes: ReadonlyArray<RedlockNode>,
  majority: number
): Effect.fn.Return<void, LockBackendError, Scope.Scope> {
  const decided = Latch.makeUnsafe(false)
  const complete = Latch.makeUnsafe(false)
  const roll: Roll = { failures: [], labels: new Map(), there: 0, twice: undefined }
  const { failures } = roll
  const heard = Effect.sync(() => {
    if (roll.there >= majority || failures.length > nodes.length - majority) decided.openUnsafe()
    if (roll.there + failures.length === nodes.length) complete.openUnsafe()
  })
  for (const node of nodes) yield* Effect.forkScoped(Effect.andThen(open(node, roll), heard))
  yield* decided.await
  yield* Effect.timeoutOption(complete.await, grace)
  if (roll.twice !== undefined) return yield* errors.options("connect", { detail: roll.twice })
  if (roll.there < majority) {
    // A refusal tells more than an absence.
    const worst = failures.find((error) => !Errors.passes(error)) ?? failures[0]
    const told = failures.map(({ address, detail, reason }) => `${address}: ${detail ?? reason}`).join("; ")
    const detail = `${roll.there} of ${nodes.length} servers, ${majority} are needed; ${told}`
    return yield* errors.of(worst?.reason ?? "Unreachable", "connect", { detail })
  }
  for (const { message } of failures) yield* Effect.logWarning(`${message}; a majority answers, so locks work`)
})
