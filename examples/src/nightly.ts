/**
 * A job on a schedule, on one of however many processes run this program. Start it on three machines.
 *
 *     DLOCK_REDIS_ADDRS=localhost:6379 SCHEDULE="0 3 * * *" node examples/src/nightly.ts
 */
import { withLockIfAvailable } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { NodeRuntime } from "@effect/platform-node"
import { Clock, Config, Console, Effect, Schedule } from "effect"

const report = Effect.flatMap(Clock.currentTimeMillis, (now) => Console.log(`report ${now}`))

const program = Effect.gen(function*() {
  const cron = yield* Config.String("SCHEDULE").pipe(Config.withDefault("0 3 * * *"))
  const minHold = yield* Config.Duration("CLOCKS_DIFFER_BY").pipe(Config.withDefault("1 minute"))
  yield* Console.log("ready")
  // The report takes milliseconds, and the clocks of the machines differ by more. So the key stays taken until all of
  // them have struck.
  const once = withLockIfAvailable("reports/nightly", report, { minHold })
  yield* Effect.schedule(once, Schedule.cron(cron))
})

NodeRuntime.runMain(Effect.provide(program, RedisLock.layerConfig()))
