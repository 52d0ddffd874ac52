/**
 * A client that knows nothing of us and follows the recipe of the Redis manual excludes us, and is excluded.
 */
import { RedisLock } from "@dlock/redis"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Fiber, Option } from "effect"
import type { Redis } from "ioredis"
import { available } from "../harness/Program.ts"
import { least, millis, newRequest, until } from "./client.ts"
import { RedisServer } from "./support.ts"

const compareAndDelete =
  `if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end`

const setup = Effect.gen(function*() {
  const { bare, server } = yield* RedisServer
  const lock = yield* RedisLock.make({ addrs: [server.addr] })
  return {
    bare,
    lock,
    take: (key: string, value: string, ttl = 30_000) => Effect.promise(() => bare.set(key, value, "PX", ttl, "NX")),
    release: (key: string, value: string) => Effect.promise(() => bare.eval(compareAndDelete, 1, key, value))
  }
})

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "1 minute" })("the recipe of the manual", (it) => {
  it.effect("finds our lock under the key itself, with our owner as its value and our ttl", () =>
    Effect.gen(function*() {
      const { bare, release, lock, take } = yield* setup
      const ours = newRequest("interop/ours")
      yield* lock.acquire(ours)
      assert.isNull(yield* take(ours.key, "theirs"), "a bare client does not get a key that we hold")
      assert.strictEqual(yield* Effect.promise(() => bare.get(ours.key)), ours.owner, "the value is the owner")
      const ttl = yield* Effect.promise(() => bare.pttl(ours.key))
      assert.isTrue(ttl > 29_000 && ttl <= 30_000, "the key has the ttl of the lease")
      assert.strictEqual(yield* release(ours.key, "theirs"), 0, "a bare client cannot release our lock")
      yield* lock.release(ours)
      assert.strictEqual(yield* take(ours.key, "theirs"), "OK", "a bare client gets a key that we released")
    }))

  it.effect("excludes us", () =>
    Effect.gen(function*() {
      const { release, lock, take } = yield* setup
      const key = "interop/theirs"
      yield* take(key, "theirs")
      assert.isTrue(
        Option.isNone(yield* lock.tryAcquire(newRequest(key))),
        "we do not get a key that a bare client holds"
      )
      yield* release(key, "theirs")
      assert.isTrue(Option.isSome(yield* lock.tryAcquire(newRequest(key))), "we get it when it was released")
    }))

  it.effect("is waited for, though it does not tell of its release", () =>
    Effect.gen(function*() {
      const { release, lock, take } = yield* setup
      const key = "interop/wait"
      yield* take(key, "theirs")
      const waiting = yield* Effect.forkScoped(lock.acquire(newRequest(key)), { startImmediately: true })
      yield* Effect.sleep("1500 millis")
      assert.isUndefined(waiting.pollUnsafe(), "we wait as long as a bare client holds the key")
      yield* release(key, "theirs")
      const [, time] = yield* millis(Fiber.join(waiting))
      assert.isBelow(time, 10_000, "a release without a message is found at the next look")
    }))

  it.effect("is waited for until its key expires", () =>
    Effect.gen(function*() {
      const { lock, take } = yield* setup
      const wait = Effect.fnUntraced(function*(n: number) {
        const key = `interop/expiry ${n}`
        yield* take(key, "theirs", 60)
        const [, time] = yield* millis(lock.acquire(newRequest(key)))
        return time
      })
      assert.isBelow(yield* least(550, wait), 550, "we look just after the expiry, not at the next refresh")
    }))

  it.effect("may hold a key without any expiry, and we wait for it", () =>
    Effect.gen(function*() {
      const { bare, lock } = yield* setup
      const key = "interop/for ever"
      yield* Effect.promise(() => bare.set(key, "theirs"))
      const waiting = yield* Effect.forkScoped(lock.acquire(newRequest(key)), { startImmediately: true })
      yield* Effect.sleep("1 second")
      assert.isUndefined(waiting.pollUnsafe(), "a key without expiry is held")
      yield* Effect.promise(() => bare.del(key))
      yield* Fiber.join(waiting)
    }))

  it.effect("may renew by PEXPIRE, and we wait for as long as it does", () =>
    Effect.gen(function*() {
      const { bare, release, lock, take } = yield* setup
      const key = "interop/pexpire"
      yield* take(key, "theirs", 400)
      const waiting = yield* Effect.forkScoped(lock.acquire(newRequest(key)), { startImmediately: true })
      for (let i = 0; i < 10; i++) {
        assert.strictEqual(yield* Effect.promise(() => bare.pexpire(key, 10_000)), 1, "the key is still theirs")
        yield* Effect.sleep("150 millis")
      }
      assert.isUndefined(waiting.pollUnsafe(), "a foreign renewal counts")
      yield* release(key, "theirs")
      yield* Fiber.join(waiting)
    }))

  it.effect("meets us also on keys with braces, and under a prefix", () =>
    Effect.gen(function*() {
      const { bare, lock, take } = yield* setup
      const { server } = yield* RedisServer
      for (const key of ["{a}b", "a}b", "{}x", "a{b", "}{", "{{x}}"]) {
        const ours = newRequest(key)
        yield* lock.acquire(ours)
        assert.isNull(yield* take(key, "theirs"), `the lock "${key}" is the key "${key}"`)
        yield* lock.release(ours)
      }
      const prefixed = yield* RedisLock.make({ addrs: [server.addr], keyPrefix: "app:" })
      const ours = newRequest("interop/prefix")
      yield* prefixed.acquire(ours)
      assert.strictEqual(
        yield* Effect.promise(() => bare.get(`app:${ours.key}`)),
        ours.owner,
        "the prefix, then the key"
      )
      const driver = bare.duplicate({ keyPrefix: "tenant:" })
      yield* Effect.addFinalizer(() => Effect.sync(() => driver.disconnect()))
      const both = yield* RedisLock.makeClient(driver, { keyPrefix: "app:" })
      yield* both.acquire(ours)
      yield* until(Effect.promise(async () => (await bare.get(`tenant:app:${ours.key}`)) === ours.owner))
    }))
})

/** How a newer server deletes a key that has this value, in one command. */
const deleteIfEqual = {
  "redis-8": (bare: Redis, key: string, value: string) => bare.call("DELEX", key, "IFEQ", value),
  "valkey-9": (bare: Redis, key: string, value: string) => bare.call("DELIFEQ", key, value)
}

for (const kind of ["redis-8", "valkey-9"] as const) {
  describe.skipIf(!available(kind))(kind, () => {
    layer(RedisServer.layer(kind), { excludeTestServices: true, timeout: "1 minute" })("the newer commands", (it) => {
      const newer = Effect.map(setup, (all) => ({
        ...all,
        remove: (key: string, value: string) => Effect.promise(() => deleteIfEqual[kind](all.bare, key, value)),
        replace: (key: string, value: string, by: string, ttl: number) =>
          Effect.promise(() => all.bare.call("SET", key, by, "IFEQ", value, "PX", ttl))
      }))

      it.effect("a bare client that renews by SET IFEQ is waited for, and its compare-and-delete is found", () =>
        Effect.gen(function*() {
          const { lock, remove, replace, take } = yield* newer
          const key = "interop/ifeq"
          yield* take(key, "theirs", 10_000)
          const waiting = yield* Effect.forkScoped(lock.acquire(newRequest(key)), { startImmediately: true })
          for (let i = 0; i < 10; i++) {
            assert.strictEqual(yield* replace(key, "theirs", "theirs", 10_000), "OK", "the key is still theirs")
            yield* Effect.sleep("150 millis")
          }
          assert.isUndefined(waiting.pollUnsafe(), "a foreign renewal counts")
          assert.strictEqual(Number(yield* remove(key, "theirs")), 1)
          yield* Fiber.join(waiting)
          assert.strictEqual(Number(yield* remove(key, "theirs")), 0, "a bare client cannot delete our lock")
        }))

      it.effect("what compares with our owner can prolong, replace and delete our lock, and we learn of it", () =>
        Effect.gen(function*() {
          const { bare, lock, remove, replace } = yield* newer
          const ours = newRequest("interop/replaced")
          yield* lock.acquire(ours)
          assert.isNull(yield* replace(ours.key, "theirs", "theirs", 30_000), "a wrong value changes nothing")
          assert.strictEqual(yield* replace(ours.key, ours.owner, ours.owner, 60_000), "OK")
          assert.isTrue(Option.isSome(yield* lock.renew(ours, {})), "what was prolonged is still ours")
          assert.strictEqual(yield* replace(ours.key, ours.owner, "theirs", 60_000), "OK")
          assert.isTrue(Option.isNone(yield* lock.renew(ours, {})), "what another took is lost")
          assert.strictEqual(yield* lock.release(ours), "gone")
          assert.strictEqual(yield* Effect.promise(() => bare.get(ours.key)), "theirs", "and is left alone")
          const next = newRequest("interop/deleted")
          yield* lock.acquire(next)
          assert.strictEqual(Number(yield* remove(next.key, next.owner)), 1)
          assert.isTrue(Option.isNone(yield* lock.renew(next, {})), "what another deleted is lost")
        }))

      it.effect("a key that is handed to a waiter is found by a bare client under the waiter's owner", () =>
        Effect.gen(function*() {
          const { bare, lock, remove, take } = yield* newer
          const [holder, next] = [newRequest("interop/handed"), newRequest("interop/handed")]
          yield* lock.acquire(holder)
          const waiting = yield* Effect.forkScoped(lock.acquire(next), { startImmediately: true })
          yield* until(Effect.promise(async () => (await bare.zcard(`{${holder.key}}:dlock-line`)) === 1))
          yield* lock.release(holder)
          assert.isNull(yield* take(holder.key, "theirs"), "there is no moment in which the key is free")
          yield* Fiber.join(waiting)
          assert.strictEqual(Number(yield* remove(holder.key, next.owner)), 1)
        }))
    })
  })
}
