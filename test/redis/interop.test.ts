/**
 * A client that knows nothing of us and follows the recipe of the Redis manual excludes us, and is excluded.
 */
import { RedisLock } from "@dlock/redis"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Option } from "effect"
import { attempt, millis, until } from "./client.ts"
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
    giveBack: (key: string, value: string) => Effect.promise(() => bare.eval(compareAndDelete, 1, key, value))
  }
})

layer(RedisServer.layer, { excludeTestServices: true, timeout: "1 minute" })("the recipe of the manual", (it) => {
  it.effect("finds our lock under the key itself, with our owner as its value and our ttl", () =>
    Effect.gen(function*() {
      const { bare, giveBack, lock, take } = yield* setup
      const ours = attempt("interop/ours")
      yield* lock.acquire(ours)
      assert.isNull(yield* take(ours.key, "theirs"), "a bare client does not get a key that we hold")
      assert.strictEqual(yield* Effect.promise(() => bare.get(ours.key)), ours.owner, "the value is the owner")
      const ttl = yield* Effect.promise(() => bare.pttl(ours.key))
      assert.isTrue(ttl > 29_000 && ttl <= 30_000, "the key has the ttl of the lease")
      assert.strictEqual(yield* giveBack(ours.key, "theirs"), 0, "a bare client can not release our lock")
      yield* lock.release(ours)
      assert.strictEqual(yield* take(ours.key, "theirs"), "OK", "a bare client gets a key that we released")
    }))

  it.effect("excludes us", () =>
    Effect.gen(function*() {
      const { giveBack, lock, take } = yield* setup
      const key = "interop/theirs"
      yield* take(key, "theirs")
      assert.isTrue(Option.isNone(yield* lock.tryAcquire(attempt(key))), "we do not get a key that a bare client holds")
      yield* giveBack(key, "theirs")
      assert.isTrue(Option.isSome(yield* lock.tryAcquire(attempt(key))), "we get it when it was released")
    }))

  it.effect("is waited for, though it tells nobody of its release", () =>
    Effect.gen(function*() {
      const { giveBack, lock, take } = yield* setup
      const key = "interop/wait"
      yield* take(key, "theirs")
      const waiting = yield* Effect.forkScoped(lock.acquire(attempt(key)), { startImmediately: true })
      yield* Effect.sleep("1500 millis")
      assert.isUndefined(waiting.pollUnsafe(), "we wait as long as a bare client holds the key")
      yield* giveBack(key, "theirs")
      const [, time] = yield* millis(Fiber.join(waiting))
      assert.isBelow(time, 1000, "a release without a message is found at the next look")
    }))

  it.effect("is waited for until its key expires", () =>
    Effect.gen(function*() {
      const { lock, take } = yield* setup
      const key = "interop/expiry"
      yield* take(key, "theirs", 300)
      const [grant, time] = yield* millis(Effect.exit(lock.acquire(attempt(key))))
      assert.isTrue(Exit.isSuccess(grant), "we get the key when it has expired")
      assert.isTrue(time >= 290 && time < 450, `we look just after the expiry, not at the next refresh (${time} ms)`)
    }))

  it.effect("may hold a key without any expiry, and we wait for it", () =>
    Effect.gen(function*() {
      const { bare, lock } = yield* setup
      const key = "interop/for ever"
      yield* Effect.promise(() => bare.set(key, "theirs"))
      const waiting = yield* Effect.forkScoped(lock.acquire(attempt(key)), { startImmediately: true })
      yield* Effect.sleep("1 second")
      assert.isUndefined(waiting.pollUnsafe(), "a key without expiry is held")
      yield* Effect.promise(() => bare.del(key))
      yield* Fiber.join(waiting)
    }))

  it.effect("meets us also on keys with braces, and under a prefix", () =>
    Effect.gen(function*() {
      const { bare, lock, take } = yield* setup
      const { server } = yield* RedisServer
      for (const key of ["{a}b", "a}b", "{}x", "a{b", "}{", "{{x}}"]) {
        const ours = attempt(key)
        yield* lock.acquire(ours)
        assert.isNull(yield* take(key, "theirs"), `the lock "${key}" is the key "${key}"`)
        yield* lock.release(ours)
      }
      const prefixed = yield* RedisLock.make({ addrs: [server.addr], keyPrefix: "app:" })
      const ours = attempt("interop/prefix")
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
      yield* until(async () => (await bare.get(`tenant:app:${ours.key}`)) === ours.owner)
    }))
})
