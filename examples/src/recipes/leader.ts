/**
 * A service that sweeps while it leads, and stands by while another instance does.
 *
 *     DLOCK_REDIS_ADDRS=localhost:6379 node examples/src/recipes/leader.ts
 */
import { Leader } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schedule } from "effect"

const sweep = Console.log("sweeps")

const sweeper = Leader.run(
  "sweeper",
  (lease) =>
    Effect.andThen(
      Console.log(`leads with token ${lease.fencingToken}`),
      Effect.repeat(sweep, Schedule.spaced("1 second"))
    ),
  { ttl: "10 seconds" } // how long nothing is swept after the leader's machine has died
)

// SIGTERM interrupts it, which releases the key: the next one leads milliseconds later.
NodeRuntime.runMain(Effect.provide(sweeper, RedisLock.layerConfig()))
