/**
 * `effect-distributed-lock`, on the Effect 3 that it needs, as functions that answer promises.
 */
import { Deferred, Effect, Exit, ManagedRuntime, Schedule } from "effect"
import { DistributedSemaphore, RedisBacking } from "effect-distributed-lock"
import { Redis } from "ioredis"

/** By default it subscribes to be told of releases; with `pollMillis` it only polls. */
export const make = (addr: string, settings: { readonly pollMillis?: number | undefined }) => {
  const [host = "", port] = addr.split(":")
  const client = new Redis({ host, port: Number(port) })
  const { pollMillis } = settings
  const runtime = ManagedRuntime.make(
    RedisBacking.layer(client, { keyPrefix: "edl:", pushBasedAcquireEnabled: pollMillis === undefined })
  )
  const semaphore = (key: string, ttl: number, limit: number) =>
    DistributedSemaphore.make(key, {
      ttl,
      limit,
      ...(pollMillis !== undefined && { acquireRetryPolicy: Schedule.spaced(pollMillis) })
    })
  const under = <A>(key: string, ttl: number, program: Effect.Effect<A>, limit = 1) =>
    runtime.runPromise(Effect.flatMap(semaphore(key, ttl, limit), (lock) => lock.withPermits(1)(program)))

  const hold = (key: string, ttl: number, onLost: () => void): Promise<() => Promise<void>> =>
    new Promise((resolve, reject) => {
      const release = Effect.runSync(Deferred.make<void>())
      let isHeld = false
      const done: Promise<void> = under(
        key,
        ttl,
        Effect.suspend(() => {
          isHeld = true
          resolve(() => {
            Deferred.unsafeDone(release, Exit.void)
            return done
          })
          return Deferred.await(release)
        })
      ).catch((error: unknown) => isHeld ? onLost() : reject(error))
    })

  return {
    pair: (key: string) => under(key, 30_000, Effect.void),
    run: (key: string, work: () => Promise<void>) => under(key, 30_000, Effect.promise(work)),
    permit: (key: string, limit: number, work: () => Promise<void>) => under(key, 30_000, Effect.promise(work), limit),
    hold,
    close: async () => {
      await runtime.dispose()
      client.disconnect()
    }
  }
}
