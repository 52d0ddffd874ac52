/**
 * How a loss comes about in etcd, and that the holder learns of it in time.
 */
import { type LockBackend, withLock } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Option } from "effect"
import type { Duration, Scope } from "effect"
import { freshKey, millis, newRequest, until } from "../requests.ts"
import { clear, escaped, Etcd, leasesOf, lineOf, revoke, roadTo } from "./support.ts"

/** When the server deletes the key, in milliseconds of the monotonic clock. */
const whenFreed = Effect.fnUntraced(function*(key: string) {
  const { bare } = yield* Etcd
  const freed = Deferred.makeUnsafe<number>()
  const watcher = yield* Effect.acquireRelease(
    Effect.promise(() => bare.watch().prefix(`${escaped(key)}/`).create()),
    (watcher) => Effect.promise(() => watcher.cancel())
  )
  watcher.on("delete", () => Deferred.doneUnsafe(freed, Effect.succeed(performance.now())))
  return Deferred.await(freed)
})

/** Holds a key, cuts the holder off, and tells how long before the server freed the key the section had ended. */
const marginOf = (
  ttl: Duration.Input,
  fault: "blackhole" | "drop"
): Effect.Effect<number, unknown, Etcd | Scope.Scope> =>
  Effect.gen(function*() {
    const { endpoints } = yield* Etcd
    const key = freshKey()
    const road = yield* roadTo(endpoints[0] ?? "")
    const freed = yield* whenFreed(key)
    const held = Deferred.makeUnsafe<void>()
    const ended = Deferred.makeUnsafe<number>()
    const section = Effect.andThen(Deferred.succeed(held, undefined), Effect.never).pipe(
      Effect.ensuring(Effect.sync(() => Deferred.doneUnsafe(ended, Effect.succeed(performance.now()))))
    )
    const program = withLock(key, section, { ttl }).pipe(
      Effect.provide(EtcdLock.layer({ endpoints: [road.addr] }))
    )
    const fiber = yield* Effect.forkScoped(Effect.exit(program))
    yield* Deferred.await(held)
    yield* Effect.sleep("300 millis")
    yield* road[fault]("both")
    const endedAt = yield* Deferred.await(ended)
    const freedAt = yield* freed
    yield* road.pass
    const exit = yield* Fiber.join(fiber)
    assert.isTrue(
      Exit.isFailure(exit) && JSON.stringify(exit).includes("LockLost"),
      "a section cut off ends as LockLost"
    )
    return freedAt - endedAt
  })

/** `a` holds a key, and `b` waits for it. */
const oneWaits = Effect.fnUntraced(function*(a: LockBackend["Service"], b: LockBackend["Service"]) {
  const { bare } = yield* Etcd
  const key = freshKey()
  const [holder, waiter] = [newRequest(key), newRequest(key)]
  yield* a.tryAcquire(holder)
  const waiting = yield* Effect.forkScoped(b.acquire(waiter))
  yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === 2))
  return { holder, key, waiter, waiting }
})

layer(Etcd.layer(), { excludeTestServices: true, concurrent: true })("loss", (it) => {
  for (const ttl of ["2 seconds", "5 seconds", "30 seconds"] as const) {
    it.effect(`a section that is cut off ends before etcd frees the key: ttl ${ttl}`, () =>
      Effect.gen(function*() {
        const margin = yield* marginOf(ttl, "blackhole")
        assert.isAbove(margin, 0, "the section ends before the server frees the key")
        assert.isBelow(margin, 5000, "and not much earlier than it must")
      }), 180_000)
  }

  it.effect("a lease that is revoked is a loss at once, for everything on it", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const backend = yield* EtcdLock.make({ endpoints })
      const requests = [newRequest(freshKey()), newRequest(freshKey())]
      for (const request of requests) yield* backend.tryAcquire(request)
      yield* Effect.sleep("1 second")
      const [lease] = yield* leasesOf(bare, requests[0]?.key ?? "")
      yield* revoke(bare, lease)
      const [, took] = yield* millis(Effect.forEach(requests, ({ lost }) => Deferred.await(lost)))
      assert.isBelow(took, 4000, "the loss is pushed, long before the next renewal")
      for (const { losses } of requests) assert.deepStrictEqual(losses, ["session"], "the reason is the session")
      for (const request of requests) {
        assert.isTrue(Option.isNone(yield* backend.renew(request, {})), "nothing on a revoked lease is renewed")
        assert.strictEqual(
          yield* backend.release(request),
          "gone",
          "nothing on a revoked lease is there to be released"
        )
      }
      const next = newRequest(requests[0]?.key ?? "")
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(next)), "a new session takes its place")
      yield* backend.release(next)
    }))

  it.effect("a key that is deleted is a loss at once, of that lock alone", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const backend = yield* EtcdLock.make({ endpoints })
      const [robbed, other] = [newRequest(freshKey()), newRequest(freshKey())]
      yield* backend.tryAcquire(robbed)
      yield* backend.tryAcquire(other)
      yield* Effect.sleep("1 second")
      yield* clear(bare, robbed.key)
      const [, took] = yield* millis(Deferred.await(robbed.lost))
      assert.isBelow(took, 4000, "the loss is pushed, long before the next renewal")
      assert.deepStrictEqual(robbed.losses, ["taken"], "the reason is that it was taken")
      assert.isTrue(Option.isNone(yield* backend.renew(robbed, {})), "a deleted key is not renewed")
      assert.strictEqual(yield* backend.release(robbed), "gone", "a deleted key is not there to be released")
      assert.deepStrictEqual(other.losses, [], "other locks of the session stay")
      assert.isTrue(Option.isSome(yield* backend.renew(other, {})), "other locks of the session are renewed")
      yield* backend.release(other)
    }))

  it.effect("a key deleted in its first moment is a loss too", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const backend = yield* EtcdLock.make({ endpoints })
      const request = newRequest(freshKey())
      yield* backend.tryAcquire(request)
      yield* clear(bare, request.key)
      const [, took] = yield* millis(Deferred.await(request.lost))
      assert.isBelow(took, 4000, "a deletion before the key was watched is not missed")
    }))

  it.effect("a key deleted while the watch is down is a loss when it stands again", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const road = yield* roadTo(endpoints[0] ?? "")
      const backend = yield* EtcdLock.make({ endpoints: [road.addr] })
      const [robbed, other] = [newRequest(freshKey()), newRequest(freshKey())]
      yield* backend.tryAcquire(robbed)
      yield* backend.tryAcquire(other)
      yield* Effect.sleep("1 second")
      yield* road.cut
      yield* road.refuse
      yield* clear(bare, robbed.key)
      yield* Effect.sleep("200 millis")
      yield* road.pass
      yield* road.cut
      const [, took] = yield* millis(Deferred.await(robbed.lost))
      assert.isBelow(took, 4000, "what happened while the watch was down is looked up")
      assert.deepStrictEqual(robbed.losses, ["taken"])
      assert.deepStrictEqual(other.losses, [], "a watch that breaks is not a loss")
      yield* backend.release(other)
    }))

  it.effect("a section under withLock is interrupted when its key is deleted", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const key = freshKey()
      const fiber = yield* Effect.forkScoped(
        Effect.flip(withLock(key, Effect.never)).pipe(
          Effect.provide(EtcdLock.layer({ endpoints }))
        )
      )
      yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === 1))
      yield* clear(bare, key)
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error._tag, "LockLost")
    }))

  it.effect("a deleted waiter lines up again, silently", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const backend = yield* EtcdLock.make({ endpoints })
      const { holder, key, waiter, waiting } = yield* oneWaits(backend, backend)
      const [, place = ""] = yield* lineOf(bare, key)
      yield* Effect.promise(() => bare.delete().key(place).exec())
      yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === 2))
      yield* backend.release(holder)
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(waiter.losses, [], "a waiter has nothing to lose")
      assert.strictEqual(yield* backend.release(waiter), "released")
    }))

  it.effect("a waiter whose key was deleted just before its turn does not believe that it holds", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const backend = yield* EtcdLock.make({ endpoints })
      const { key, waiter, waiting } = yield* oneWaits(backend, backend)
      const places = yield* lineOf(bare, key)
      yield* Effect.promise(() =>
        bare.if(key, "Create", "==", 0).then(...places.map((k) => bare.delete().key(k))).commit()
      )
      yield* Fiber.join(waiting)
      assert.strictEqual((yield* lineOf(bare, key)).length, 1, "a holder has a key")
      assert.isTrue(Option.isNone(yield* backend.tryAcquire(newRequest(key))))
      assert.strictEqual(yield* backend.release(waiter), "released")
    }))

  it.effect("a waiter whose lease is revoked lines up again on a new session, silently", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const [a, b] = [yield* EtcdLock.make({ endpoints }), yield* EtcdLock.make({ endpoints })]
      const { holder, key, waiter, waiting } = yield* oneWaits(a, b)
      const [, lease] = yield* leasesOf(bare, key)
      yield* revoke(bare, lease)
      yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === 2))
      yield* a.release(holder)
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(waiter.losses, [], "a waiter has nothing to lose")
      assert.strictEqual(yield* b.release(waiter), "released")
    }))
})
