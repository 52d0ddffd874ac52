import { LockBackend } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { Redlock } from "@dlock/redis"
import { Effect, Layer } from "effect"
import { available } from "../harness/Program.ts"
import { addrsOf, capabilities, RedisServers } from "./support.ts"

// Five servers on one machine that is busy with other tests do not always answer within a tenth of the ttl.
const backend = Layer.effect(
  LockBackend,
  Effect.flatMap(
    RedisServers,
    (nodes) => Redlock.make({ nodes: addrsOf(nodes), nodeTimeout: "500 millis", commandTimeout: "30 seconds" })
  )
)

// One of each kind that is here: the servers of a redlock need not be alike.
const kinds = (["redis-8", "valkey-9"] as const).filter(available)

LockTest.suiteWith(["redlock", ...kinds].join(", "), backend, capabilities, RedisServers.layer(kinds))
