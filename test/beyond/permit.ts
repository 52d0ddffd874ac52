/**
 * Asks for permits of a key and holds them; prints when it asks and when it has them.
 *
 * Arguments: the address of the Redis server, the key, the limit, how many permits.
 */
import { withPermit } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { Effect } from "effect"

const [addr = "", key = "", limit = "", permits = ""] = process.argv.slice(2)

const write = (line: string) => Effect.sync(() => process.stdout.write(`${line}\n`))
const amount = { limit: Number(limit), permits: Number(permits) }
const program = Effect.andThen(
  write("asks"),
  withPermit(key, amount, Effect.andThen(write("has"), Effect.never), { ttl: "3 seconds" })
)

await Effect.runPromise(Effect.provide(program, RedisLock.layer({ addrs: [addr] })))
