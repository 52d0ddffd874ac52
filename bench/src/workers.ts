/**
 * Processes of the bench.
 */
import { Effect, type Scope } from "effect"
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import type { Call, Reply, TaskName, Tasks } from "./Task.ts"

export interface Worker {
  readonly ask: <K extends TaskName>(task: K, input: Tasks[K]["input"]) => Promise<Tasks[K]["output"]>
  readonly stop: () => void
}

const program = fileURLToPath(new URL("worker.ts", import.meta.url))

/** A process that does one task after the other, or several at a time. */
export const launch = (): Worker => {
  const child = fork(program, { execArgv: ["--expose-gc", ...(process.env["BENCH_ARGV"]?.split(" ") ?? [])] })
  const waiting = new Map<
    number,
    { readonly resolve: (value: never) => void, readonly reject: (error: Error) => void }
  >()
  let last = 0
  child.on("message", (reply: Reply) => {
    const call = waiting.get(reply.id)
    waiting.delete(reply.id)
    if ("error" in reply) call?.reject(new Error(reply.error))
    else call?.resolve(reply.output as never)
  })
  child.on("exit", (code) => {
    for (const { reject } of waiting.values()) reject(new Error(`a process of the bench ended with ${code}`))
  })
  return {
    ask: (task, input) =>
      new Promise((resolve, reject) => {
        const id = ++last
        waiting.set(id, { resolve, reject })
        child.send({ id, task, input } satisfies Call)
      }),
    stop: () => {
      child.disconnect()
    }
  }
}

const launched = Effect.acquireRelease(Effect.sync(launch), (worker) => Effect.sync(worker.stop))

/** Several, until the scope closes. */
export const crew = (size: number): Effect.Effect<ReadonlyArray<Worker>, never, Scope.Scope> =>
  Effect.all(Array.from({ length: size }, () => launched))

/** A live-mutex server in a process of its own, until the scope closes. */
export const startBroker = (port: number): Effect.Effect<void, never, Scope.Scope> =>
  Effect.flatMap(launched, (worker) => Effect.promise(() => worker.ask("broker", { port })))
