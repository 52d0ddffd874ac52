/**
 * One of several processes with the same job on the same schedule, every second; prints when it ran the job.
 *
 * Arguments: the address of the Redis server, the key, by how many milliseconds the clock of its machine is behind.
 */
import { withLockIfAvailable } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { Effect, Schedule } from "effect"

const [addr = "", key = "", behind = ""] = process.argv.slice(2)

const job = Effect.andThen(
  Effect.sleep("5 millis"),
  Effect.sync(() => process.stdout.write(`ran ${Date.now()}\n`))
)
const tick = withLockIfAvailable(key, job, { minHold: "600 millis" }).pipe(Effect.delay(Number(behind)))
const program = Effect.andThen(
  Effect.sync(() => process.stdout.write(`ready ${Date.now()}\n`)),
  Effect.schedule(tick, Schedule.cron("* * * * * *"))
)

await Effect.runPromise(Effect.provide(program, RedisLock.layer({ addrs: [addr] })))
