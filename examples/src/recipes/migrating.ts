/**
 * What calls of `redlock` become, by promises. Those of `@sesamecare-oss/redlock` and `redlock-universal` have the same shapes.
 */
import type { LockManager } from "@dlock/core/promise"

/** Was `redlock.using([key], 5000, work)`. */
export const using = (locks: LockManager, key: string, work: (signal: AbortSignal) => Promise<void>) =>
  locks.request(key, { ttl: "5 seconds" }, (lease) => work(lease.signal))

/** Was `redlock.acquire([key], 5000)`, `lock.release()` in a `finally`. */
export const acquire = async (locks: LockManager, key: string, work: () => Promise<void>) => {
  await using _lease = await locks.acquire(key, { ttl: "5 seconds" })
  await work()
}

/** Was a redlock with `retryCount: 0`, and a `catch` for `ExecutionError`. */
export const once = (locks: LockManager, key: string, work: () => Promise<void>) =>
  locks.request(key, { ifAvailable: true }, async (lease) => {
    if (lease === null) return false
    await work()
    return true
  })

/** Was `retryCount: 50, retryDelay: 200`: ten seconds of tries. Now it stands in line for as long. */
export const patient = (locks: LockManager, key: string, work: () => Promise<void>) =>
  locks.request(key, { timeout: "10 seconds" }, work)
