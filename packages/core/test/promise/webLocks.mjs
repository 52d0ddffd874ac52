// A whole program in plain JavaScript.
import { LockLost, LockUnavailable, MemoryLock } from "@dlock/core"
import { LockManager } from "@dlock/core/promise"

const print = (...words) => process.stdout.write(`${words.join(" ")}\n`)

const locks = await LockManager.make(MemoryLock.layer)

// Two callers, one at a time.
let stock = 1
const sell = async () => {
  if (stock === 0) return "sold out"
  await new Promise((resolve) => setTimeout(resolve, 5))
  stock--
  return "sold"
}
const sales = await Promise.all([locks.request("stock", sell), locks.request("stock", sell)])
print(sales.join(", "))

// Not now, then not at all.
await locks.request("report", async () => {
  const answer = await locks.request("report", { ifAvailable: true }, async (lease) => lease === null ? "busy" : "free")
  print(answer)
  await locks.request("report", { timeout: 10 }, async () => {}).catch((error) => {
    print(error instanceof LockUnavailable, error._tag, error.reason)
  })
})

// The callback's own error, as it is.
await locks.request("report", async () => {
  throw new TypeError("mine")
}).catch((error) => print(error instanceof TypeError, error.message))

// Held until it is released.
const lease = await locks.acquire("job", { ttl: "1 minute" })
print(lease.key, lease.isHeld, lease.remaining > 50_000, typeof lease.fencingToken)
await lease.release()
print(lease.isHeld)

// The end of the manager ends what is held.
const held = locks.request("job", async ({ signal }) => {
  queueMicrotask(() => locks.close())
  await new Promise((resolve) => signal.addEventListener("abort", resolve))
  print(signal.reason instanceof LockLost, signal.reason.reason)
})
await held.catch((error) => print(error._tag, error.reason))
await locks.request("job", async () => {}).catch((error) => print(error._tag))
