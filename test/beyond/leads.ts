/**
 * A candidate; prints when it asks, when it leads, with its token, and when it has stopped.
 *
 * Arguments: the address of the Redis server, the key.
 */
import { Leader } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"

const [addr = "", key = ""] = process.argv.slice(2)

const write = (line: string) => Effect.sync(() => process.stdout.write(`${line}\n`))

const program = Leader.run(
  key,
  ({ fencingToken }) => Effect.ensuring(Effect.andThen(write(`leads ${fencingToken}`), Effect.never), write("stops"))
)

NodeRuntime.runMain(Effect.provide(Effect.andThen(write("asks"), program), RedisLock.layer({ addrs: [addr] })))
