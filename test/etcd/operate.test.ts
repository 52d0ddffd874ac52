/**
 * What operators and core ask besides the lock itself: inspect, revoke, ping, new tokens, and waiters.
 */
import { EtcdLock } from "@dlock/etcd"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option } from "effect"
import { etcd, etcdCluster } from "../harness/EtcdServer.ts"
import { freshKey, millis, newRequest, until } from "../requests.ts"
import { clear, connect, Etcd, leasesOf, lineOf, revoke } from "./support.ts"

const two = Effect.gen(function*() {
  const { bare, endpoints } = yield* Etcd
  return { bare, a: yield* EtcdLock.make({ endpoints }), b: yield* EtcdLock.make({ endpoints }) }
})

layer(Etcd.layer(), { excludeTestServices: true, concurrent: true })("etcd, operated", (it) => {
  it.effect("inspect tells the holder and what it has left, and the line in order", () =>
    Effect.gen(function*() {
      const { a, b, bare } = yield* two
      const key = `${freshKey()}/with%signs`
      assert.deepStrictEqual(yield* a.inspect(key), { holder: Option.none(), waiting: [] })
      const [holder, ...waiters] = [newRequest(key, "10 seconds"), newRequest(key), newRequest(key)]
      yield* a.acquire(holder)
      const waiting = []
      for (const waiter of waiters) {
        const before = (yield* lineOf(bare, key)).length
        waiting.push(yield* Effect.forkScoped(b.acquire(waiter)))
        yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === before + 1))
      }
      const inspection = yield* b.inspect(key)
      const held = Option.getOrThrow(inspection.holder)
      assert.strictEqual(held.owner, holder.owner)
      assert.isTrue((held.remaining ?? 0) > 4000 && (held.remaining ?? 0) <= 10_000, `${held.remaining} ms are left`)
      assert.deepStrictEqual(inspection.waiting, waiters.map(({ owner }) => owner))
      yield* a.release(holder)
      for (const [i, waiter] of waiters.entries()) {
        const fiber = waiting[i]
        if (fiber !== undefined) yield* Fiber.join(fiber)
        yield* b.release(waiter)
      }
      assert.deepStrictEqual(yield* a.inspect(key), { holder: Option.none(), waiting: [] })
    }))

  it.effect("inspect tells a key of another program as far as it can", () =>
    Effect.gen(function*() {
      const { a, bare } = yield* two
      const key = freshKey()
      yield* Effect.promise(() => bare.put(`${key}/694d71ddacfda227`).value("").exec())
      const { holder } = yield* a.inspect(key)
      assert.deepStrictEqual(
        Option.map(holder, ({ owner, remaining }) => [owner, remaining]),
        Option.some([undefined, undefined])
      )
      const waiter = newRequest(key)
      const waiting = yield* Effect.forkScoped(a.acquire(waiter))
      yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === 2))
      assert.deepStrictEqual((yield* a.inspect(key)).waiting, [waiter.owner])
      assert.isFalse(yield* a.revoke(key, "694d71ddacfda227"), "revoke ends holds of this backend only")
      yield* clear(bare, key)
      yield* Fiber.join(waiting)
      yield* a.release(waiter)
    }))

  it.effect("revoke ends the hold of this owner and of no other, and the next in line has the key", () =>
    Effect.gen(function*() {
      const { a, b, bare } = yield* two
      const key = freshKey()
      const [holder, waiter, other] = [newRequest(key), newRequest(key), newRequest(freshKey())]
      yield* a.tryAcquire(holder)
      yield* a.tryAcquire(other)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === 2))
      for (const owner of [waiter.owner, other.owner, "nobody/1"]) {
        assert.isFalse(yield* b.revoke(key, owner), "only the holder's hold is ended")
      }
      yield* Effect.sleep("300 millis")
      assert.isTrue(yield* b.revoke(key, holder.owner))
      yield* Fiber.join(waiting)
      const [, took] = yield* millis(Deferred.await(holder.lost))
      assert.isBelow(took, 8000, "the loss is pushed: a keepalive is sent every ten seconds")
      assert.deepStrictEqual([holder.losses, other.losses], [["taken"], []])
      assert.isFalse(yield* b.revoke(key, holder.owner), "it does not hold the key any more")
      assert.strictEqual(yield* a.release(holder), "gone")
      yield* b.release(waiter)
      yield* a.release(other)
    }))

  it.effect("a renewal for tokens gives one that is greater than all before and smaller than all later ones", () =>
    Effect.gen(function*() {
      const { a, b, bare } = yield* two
      const key = freshKey()
      const holder = newRequest(key)
      const tokens = [Option.getOrThrow(yield* a.tryAcquire(holder)).tokens.first]
      for (let i = 0; i < 3; i++) {
        const renewed = Option.getOrThrow(yield* a.renew(holder, { spare: 63 }))
        assert.isTrue(renewed.ttl > 0)
        tokens.push(renewed.tokens?.first ?? 0n)
      }
      // Its key is put before the holder gets another token.
      const waiter = newRequest(key)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === 2))
      tokens.push(Option.getOrThrow(yield* a.renew(holder, { spare: 1 })).tokens?.first ?? 0n)
      assert.strictEqual(yield* a.release(holder), "released")
      tokens.push((yield* Fiber.join(waiting)).tokens.first)
      tokens.push(Option.getOrThrow(yield* b.renew(waiter, { spare: 1 })).tokens?.first ?? 0n)
      yield* b.release(waiter)
      const next = newRequest(key)
      tokens.push(Option.getOrThrow(yield* b.tryAcquire(next)).tokens.first)
      yield* b.release(next)
      for (const [i, token] of tokens.entries()) {
        assert.isTrue(i === 0 || token > (tokens[i - 1] ?? 0n), tokens.join(" "))
      }
    }))

  it.effect("a renewal of a key that is gone gives no token, also before the loss is pushed", () =>
    Effect.gen(function*() {
      const { a, bare } = yield* two
      for (const renewal of [{ spare: 0 }, { fresh: true }]) {
        const [deleted, revoked] = [newRequest(freshKey(), "20 seconds"), newRequest(freshKey(), "40 seconds")]
        for (const request of [deleted, revoked]) yield* a.tryAcquire(request)
        yield* clear(bare, deleted.key)
        const [lease] = yield* leasesOf(bare, revoked.key)
        yield* revoke(bare, lease)
        assert.isTrue(Option.isNone(yield* a.renew(deleted, renewal)))
        assert.isTrue(Option.isNone(yield* a.renew(revoked, renewal)))
        assert.deepStrictEqual(deleted.losses, ["taken"])
        assert.strictEqual(revoked.losses.length, 1, "the loss is told once")
      }
    }))

  it.effect("a holder learns that another process waits: one that comes, one that came before the grant, and no own write", () =>
    Effect.gen(function*() {
      const { a, b, bare } = yield* two
      const key = freshKey()
      const [first, second, third] = [newRequest(key), newRequest(key), newRequest(key)]
      yield* a.tryAcquire(first)
      yield* Effect.sleep("400 millis")
      yield* a.renew(first, { spare: 1 })
      yield* Effect.sleep("100 millis")
      assert.isFalse(yield* Deferred.isDone(first.wanted), "nothing waits")
      const waiting = []
      for (const waiter of [second, third]) {
        waiting.push(yield* Effect.forkScoped(b.acquire(waiter)))
        yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === waiting.length + 1))
      }
      yield* Effect.timeout(Deferred.await(first.wanted), "20 seconds")
      yield* a.release(first)
      for (const fiber of waiting.slice(0, 1)) yield* Fiber.join(fiber)
      yield* Deferred.await(second.wanted).pipe(Effect.timeout("20 seconds"))
      yield* b.release(second)
      for (const fiber of waiting) yield* Fiber.join(fiber)
      yield* Effect.sleep("500 millis")
      assert.isFalse(yield* Deferred.isDone(third.wanted), "the last one keeps nothing waiting")
      yield* b.release(third)
    }))

  it.effect("a renewal for tokens tells of waiters, within the first moment of a hold", () =>
    Effect.gen(function*() {
      const { a, b, bare } = yield* two
      const key = freshKey()
      const [holder, waiter] = [newRequest(key), newRequest(key)]
      yield* a.tryAcquire(holder)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === 2))
      yield* a.renew(holder, { spare: 1 })
      assert.isTrue(yield* Deferred.isDone(holder.wanted))
      yield* a.release(holder)
      yield* Fiber.join(waiting)
      yield* b.release(waiter)
    }))

  it.effect("ping passes where locks can be taken, and fails within the command timeout where they cannot", () =>
    Effect.gen(function*() {
      const { nodes } = yield* etcdCluster()
      const [only, ...others] = nodes
      const backend = yield* EtcdLock.make({ endpoints: [only?.addr ?? ""], commandTimeout: "2 seconds" })
      yield* backend.ping
      yield* Effect.forEach(others, (node) => node.kill)
      const [error, took] = yield* millis(Effect.flip(Effect.andThen(Effect.sleep("1500 millis"), backend.ping)))
      assert.strictEqual(error.reason, "Unreachable", error.message)
      assert.isBelow(took, 15_000)
    }))

  it.effect("a full server: ping says so, and what is held is renewed and released", () =>
    Effect.gen(function*() {
      const server = yield* etcd({ args: ["--quota-backend-bytes=1048576"] })
      const bare = yield* connect([server.addr])
      const backend = yield* EtcdLock.make({ endpoints: [server.addr] })
      const held = newRequest(freshKey())
      yield* backend.tryAcquire(held)
      const filling = yield* connect([server.addr])
      yield* Effect.promise(async () => {
        for (let i = 0; i < 64; i++) await filling.put(`fill/${i}`).value("x".repeat(100_000)).exec().catch(() => {})
      })
      const error = yield* Effect.flip(backend.ping)
      assert.strictEqual(error.reason, "Rejected")
      assert.match(error.message, /database space exceeded/)
      assert.isTrue(Option.isSome(yield* backend.renew(held, { fresh: true })), "a hold is renewed without space")
      assert.strictEqual(yield* backend.release(held), "released")
      assert.deepStrictEqual(yield* lineOf(bare, held.key), [])
    }))
})
