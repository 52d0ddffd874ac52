/**
 * Connecting to N servers, of which a majority is enough to begin with.
 */
import type { LockBackendError } from "@dlock/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import * as RedisServer from "./RedisServer.ts"
import type { RedlockNode } from "./RedlockNode.ts"
import { backendError } from "./RedlockNode.ts"

/** For how long the others are waited for when it is decided. */
const grace = Duration.millis(250)

/**
 * Connects to all of them, and fails when there is no majority within the limit. One that is away is connected to when
 * it comes.
 */
export const connect = Effect.fnUntraced(function*(
  nodes: ReadonlyArray<RedlockNode>,
  majority: number,
  limit: Duration.Duration
): Effect.fn.Return<void, LockBackendError, Scope.Scope> {
  const decided = Latch.makeUnsafe(false)
  const complete = Latch.makeUnsafe(false)
  const failures: Array<LockBackendError> = []
  const labels = new Map<string, string>()
  let there = 0
  let twice: string | undefined

  const heard = () => {
    if (there >= majority || failures.length > nodes.length - majority) decided.openUnsafe()
    if (there + failures.length === nodes.length) complete.openUnsafe()
  }
  const connectTo = (node: RedlockNode) =>
    RedisServer.inspect(node.client, "standalone", limit).pipe(
      Effect.matchEffect({
        onSuccess: ({ clockAhead, runId }) =>
          Effect.sync(() => {
            node.clockAhead = clockAhead
            there++
            const other = runId === undefined ? undefined : labels.get(runId)
            if (other !== undefined) twice = `${other} and ${node.label} are one server, which has one vote`
            if (runId !== undefined) labels.set(runId, node.label)
          }),
        onFailure: (error) => {
          const { cause, detail, message, reason } = error
          failures.push(backendError("connect", reason, `${node.label}: ${detail ?? message}`, cause))
          return Effect.void
        }
      }),
      Effect.andThen(Effect.sync(heard))
    )

  for (const node of nodes) yield* Effect.forkScoped(connectTo(node))
  yield* decided.await
  yield* Effect.timeoutOption(complete.await, grace)
  if (twice !== undefined) return yield* backendError("connect", "Options", twice)
  if (there < majority) {
    const details = failures.map(({ detail }) => detail).join("; ")
    const [first] = failures.toSorted((a, b) => Number(isAbsence(a)) - Number(isAbsence(b)))
    return yield* backendError(
      "connect",
      first?.reason ?? "Unreachable",
      `${there} of ${nodes.length} servers, ${majority} are needed; ${details}`,
      first?.cause
    )
  }
  for (const { message } of failures) yield* Effect.logWarning(`${message}; a majority is there, so locks work`)
})

const isAbsence = ({ reason }: LockBackendError): boolean => reason === "Unreachable" || reason === "Timeout"
