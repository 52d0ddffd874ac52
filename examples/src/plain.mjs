/**
 * A program in plain JavaScript, without Effect: it works through a list, one process at a time.
 *
 *     REDIS=localhost:6379 node examples/src/plain.mjs
 */
import { LockLost, LockUnavailable } from "@dlock/core"
import { LockManager } from "@dlock/core/promise"
import { RedisLock } from "@dlock/redis"
import { setTimeout } from "node:timers/promises"

const locks = await LockManager.make(RedisLock.layer({ addrs: [process.env.REDIS ?? "localhost:6379"] }))

const stop = new AbortController()
process.once("SIGTERM", () => stop.abort())

try {
  await locks.request("import", { timeout: "30 seconds", signal: stop.signal }, async (lease) => {
    console.log(`begins with token ${lease.fencingToken}`)
    for (let row = 1; row <= 5; row++) {
      // A promise cannot be interrupted, so the loop looks at both signals by itself.
      await setTimeout(20, undefined, { signal: AbortSignal.any([lease.signal, stop.signal]) })
    }
    console.log("ends")
  })
} catch (error) {
  if (stop.signal.aborted) console.error("stopped by SIGTERM")
  else if (error instanceof LockUnavailable) console.error("another process has been importing for 30 seconds")
  else if (error instanceof LockLost) console.error(`the lock was lost: ${error.reason}`)
  else throw error
  process.exitCode = 1
} finally {
  await locks.close() // releases what is held, and lets the process end
}
