/**
 * Programs that move from another library: what their calls become, and that both exclude each other over the same
 * servers, so that instances of both can run beside each other during a deployment.
 */
import { tryAcquire } from "@dlock/core"
import { LockManager } from "@dlock/core/promise"
import { RedisLock, Redlock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Redlock as Sesamecare } from "@sesamecare-oss/redlock"
import { Effect, Option } from "effect"
import { Redis } from "ioredis"
import Redlock5 from "redlock"
import { createLock, IoredisAdapter } from "redlock-universal"
import * as migrating from "../../examples/src/recipes/migrating.ts"
import { redis } from "../harness/RedisServer.ts"

const key = "orders/42"
const ttl = 30_000

/** Takes the key and answers with how to release it; rejects when it is held. */
type Take = (clients: ReadonlyArray<Redis>) => Promise<() => Promise<unknown>>

const libraries: { readonly [name: string]: { readonly servers: number, readonly take: Take } } = {
  redlock: {
    servers: 1,
    take: async (clients) => {
      const lock = await new Redlock5([...clients], { retryCount: 0 }).acquire([key], ttl)
      return () => lock.release()
    }
  },
  "redlock on three servers": {
    servers: 3,
    take: async (clients) => {
      const lock = await new Redlock5([...clients], { retryCount: 0 }).acquire([key], ttl)
      return () => lock.release()
    }
  },
  "@sesamecare-oss/redlock": {
    servers: 1,
    take: async (clients) => {
      const lock = await new Sesamecare([...clients], { retryCount: 0 }).acquire([key], ttl)
      return () => lock.release()
    }
  },
  "redlock-universal": {
    servers: 1,
    take: async ([client]) => {
      if (client === undefined) throw new Error("no server")
      const lock = createLock({ adapter: new IoredisAdapter(client), key, ttl, retryAttempts: 0 })
      const handle = await lock.acquire()
      return () => lock.release(handle)
    }
  }
}

describe("beside dlock", () => {
  for (const [name, { servers, take }] of Object.entries(libraries)) {
    it.live(`${name}: each excludes the other`, () =>
      Effect.gen(function*() {
        const addrs = yield* Effect.forEach(Array.from({ length: servers }), () =>
          Effect.map(redis(), ({ addr }) => addr))
        const clients = yield* Effect.forEach(addrs, (addr) =>
          Effect.acquireRelease(
            Effect.sync(() =>
              new Redis(`redis://${addr}`)
            ),
            (client) => Effect.sync(() => client.disconnect())
          ))
        const layer = servers === 1 ? RedisLock.layer({ addrs }) : Redlock.layer({ nodes: addrs })
        const theirs = Effect.promise(() => take(clients).catch(() => undefined))
        yield* Effect.gen(function*() {
          const release = yield* theirs
          assert.isDefined(release, "the key was free")
          assert.isTrue(Option.isNone(yield* Effect.scoped(tryAcquire(key))), "theirs excludes ours")
          yield* Effect.promise(() => release?.() ?? Promise.resolve())
          yield* Effect.scoped(Effect.gen(function*() {
            assert.isTrue(Option.isSome(yield* tryAcquire(key)), "ours gets what theirs has released")
            assert.isUndefined(yield* theirs, "ours excludes theirs")
          }))
          assert.isDefined(yield* theirs, "theirs gets what ours has released")
        }).pipe(Effect.provide(layer))
      }))
  }
})

it.live("the calls of redlock by promises", () =>
  Effect.gen(function*() {
    const { addr } = yield* redis()
    yield* Effect.promise(async () => {
      const locks = await LockManager.make(RedisLock.layer({ addrs: [addr] }))
      const log: Array<string> = []
      const write = (line: string) => async () => {
        log.push(line)
      }
      await migrating.using(locks, key, async (signal) => {
        log.push(`using ${signal.aborted}`)
        assert.isFalse(await migrating.once(locks, key, write("never")))
      })
      await migrating.acquire(locks, key, write("acquire"))
      assert.isTrue(await migrating.once(locks, key, write("once")))
      await migrating.patient(locks, key, write("patient"))
      assert.deepStrictEqual(log, ["using false", "acquire", "once", "patient"])
      await locks.close()
    })
  }))
