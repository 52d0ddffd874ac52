/**
 * The same for data in Redis: one script compares the token and writes. A token of 64 bits does not fit a number of Lua,
 * so tokens are compared as text of equal length.
 */
import type { Lease } from "@dlock/core"
import { Effect } from "effect"
import type { Redis } from "ioredis"

const script = `
local last = redis.call("HGET", KEYS[1], "token")
if last and last > ARGV[1] then return 0 end
redis.call("HSET", KEYS[1], "token", ARGV[1], "body", ARGV[2])
return 1`

/** `false`: a later holder of the key has written. */
export const save = (client: Redis, lease: Lease, name: string, body: string): Effect.Effect<boolean> =>
  Effect.map(
    Effect.promise(() => client.eval(script, 1, name, lease.fencingToken.toString().padStart(20, "0"), body)),
    (written) => written === 1
  )
