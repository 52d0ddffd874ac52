/**
 * A program for the harness's own tests: starts servers, says so, and never ends by itself.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { etcd } from "./EtcdServer.ts"
import { redis } from "./RedisServer.ts"

const program = Effect.gen(function*() {
  const paused = yield* redis({})
  yield* etcd({})
  yield* paused.pause
  process.stdout.write("ready\n")
  yield* Effect.never
})

const ways = {
  /** Signals interrupt the program, and its finalizers run. */
  effect: () => NodeRuntime.runMain(Effect.scoped(program)),
  /** Signals end the process at once. */
  bare: () => void Effect.runFork(Effect.scoped(program))
}

ways[process.argv[2] === "effect" ? "effect" : "bare"]()
