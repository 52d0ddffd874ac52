/**
 * A process with contenders for one key; prints each of its turns: when it began and ended, in nanoseconds of the clock
 * that all processes of a machine share, and its token.
 *
 * Arguments: the addresses of the servers, the key, how many contend, for how many milliseconds.
 */
import { withLock } from "@dlock/core"
import { Redlock } from "@dlock/redis"
import { Effect, Random } from "effect"

const [nodes = "", key = "", contenders = "", millis = ""] = process.argv.slice(2)

const turn = withLock(
  key,
  (lease) => {
    const began = process.hrtime.bigint()
    return Effect.flatMap(Random.nextIntBetween(0, 5), Effect.sleep).pipe(
      // Also of a turn that is lost: it has ended when its section has.
      Effect.ensuring(Effect.sync(() => {
        process.stdout.write(`${began} ${process.hrtime.bigint()} ${lease.fencingToken}\n`)
      }))
    )
  },
  { ttl: "2 seconds" }
)

const contend = Effect.suspend(() => {
  const until = performance.now() + Number(millis)
  // A loss or an absent majority is for those who use the lock; here it is only not to break exclusion.
  const turns = Effect.repeat(Effect.result(turn), { while: () => performance.now() < until })
  return Effect.forEach(Array.from({ length: Number(contenders) }), () => turns, {
    concurrency: "unbounded",
    discard: true
  })
})

await Effect.runPromise(Effect.provide(contend, Redlock.layer({ nodes: nodes.split(","), commandTimeout: "1 second" })))
process.exit(0)
