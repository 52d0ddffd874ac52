import { LockBackend, type LockRequest, type LossReason, MemoryLock, withLock, withLockIfAvailable } from "@dlock/core"
import { LockTest } from "@dlock/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Layer, Option } from "effect"
import { TestClock } from "effect/testing"
import * as memoryStore from "../src/internal/memory/store.ts"
import * as Memory from "./support/memory.ts"

const { capabilities, network, store } = Effect.runSync(Memory.make())

LockTest.suite("memory", Layer.succeed(LockBackend, store), capabilities)

LockTest.suite("memory, in real time", Layer.succeed(LockBackend, store), {
  ...capabilities,
  clock: "live",
  minTtl: "1 second"
})

LockTest.suite(
  "memory, behind a network",
  Layer.effect(LockBackend, Effect.map(network.client, ({ client }) => client)),
  { ...capabilities, inLine: network.inLine }
)

const request = (key: string, owner: string, ttl: Duration.Input = "10 seconds") => {
  const losses: Array<LossReason> = []
  return {
    key,
    owner,
    ttl: Duration.toMillis(Duration.fromInputUnsafe(ttl)),
    spare: 0,
    onLost: (reason: LossReason) => losses.push(reason),
    onWanted: () => {},
    losses
  }
}

const waitFor = (backend: LockBackend["Service"], asked: LockRequest) =>
  Effect.forkChild(backend.acquire(asked), { startImmediately: true })

describe("MemoryLock", () => {
  it.effect("gives the key to the next in line at the moment the grant ends", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryLock.make
      const holder = request("k", "holder")
      yield* backend.acquire(holder)
      const waiting = yield* waitFor(backend, request("k", "waiter"))
      yield* TestClock.adjust("6 seconds")
      yield* backend.renew(holder, {})
      yield* TestClock.adjust("9999 millis")
      assert.isUndefined(waiting.pollUnsafe(), "a renewed grant ends a ttl after its renewal, not before")
      yield* TestClock.adjust("1 millis")
      const grant = yield* Fiber.join(waiting)
      assert.strictEqual(grant.validFrom, 16_000, "the next grant counts from the end of the last")
      assert.deepStrictEqual(holder.losses, ["taken"], "the holder is told")
    }))

  it.effect("wakes up in time for a grant that is shorter than the one before", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryLock.make
      const holder = request("k", "holder", "1 hour")
      yield* backend.acquire(holder)
      const short = yield* waitFor(backend, request("k", "short", "1 second"))
      const last = yield* waitFor(backend, request("k", "last"))
      yield* TestClock.adjust("1 minute")
      yield* backend.release(holder)
      yield* Fiber.join(short)
      yield* TestClock.adjust("1 second")
      assert.isDefined(last.pollUnsafe(), "the last in line has the key when the short grant ends")
    }))

  it.effect("has a timer while, and only while, a request waits", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryLock.make
      let timers = 0
      const clock = yield* Clock.Clock
      const counting: Clock.Clock = {
        ...clock,
        sleep: (duration) =>
          Effect.acquireUseRelease(
            Effect.sync(() => timers++),
            () => clock.sleep(duration),
            () => Effect.sync(() => timers--)
          )
      }
      yield* Effect.gen(function*() {
        const holder = request("k", "holder")
        yield* backend.acquire(holder)
        assert.strictEqual(timers, 0, "a held key has no timer")
        const first = yield* waitFor(backend, request("k", "first"))
        const second = yield* waitFor(backend, request("k", "second"))
        assert.strictEqual(timers, 1, "a line has one timer")
        yield* Fiber.interrupt(first)
        assert.strictEqual(timers, 1, "a line has one timer")
        yield* Fiber.interrupt(second)
        assert.strictEqual(timers, 0, "a line that every waiter left has no timer")
        const third = yield* waitFor(backend, request("k", "third"))
        assert.strictEqual(timers, 1, "a new line has a timer again")
        yield* backend.release(holder)
        yield* Fiber.join(third)
        assert.strictEqual(timers, 0, "a line that was served has no timer")
      }).pipe(Effect.provideService(Clock.Clock, counting))
    }))

  it.effect("serves a line of 5,000 without nesting", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryLock.make
      const holder = request("k", "holder")
      yield* backend.acquire(holder)
      const section = (i: number) => {
        const waiter = request("k", `waiter/${i}`)
        return Effect.andThen(backend.acquire(waiter), backend.release(waiter))
      }
      const all = yield* Effect.forEach(Array.from({ length: 5_000 }, (_, i) => i), section, {
        concurrency: "unbounded"
      }).pipe(Effect.forkChild({ startImmediately: true }))
      yield* Effect.yieldNow
      yield* backend.release(holder)
      assert.isTrue((yield* Fiber.join(all)).every((answer) => answer === "released"), "every waiter held the key")
    }))

  it.effect("forgets keys that are not held, also those that were left to expire", () =>
    Effect.gen(function*() {
      const now = memoryStore.nowOf(yield* Clock.Clock)
      const store = memoryStore.make()
      for (let i = 0; i < 1000; i++) {
        const asked = request(`released/${i}`, "owner")
        memoryStore.tryAcquire(store, asked, now)
        memoryStore.release(store, asked, now)
      }
      assert.strictEqual(store.entries.size, 0, "a released key leaves nothing")
      for (let i = 0; i < 1000; i++) memoryStore.tryAcquire(store, request(`left/${i}`, "owner", "1 second"), now)
      assert.strictEqual(store.entries.size, 1000)
      yield* TestClock.adjust("1 second")
      for (let i = 0; i < 1000; i++) memoryStore.tryAcquire(store, request(`held/${i}`, "owner"), now + 1000)
      assert.strictEqual(store.entries.size, 1000, "keys that were left to expire make room for new ones")
    }))

  it.effect("a holder that is told of its loss may use the backend at once", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryLock.make
      const next = request("k", "next")
      let again: Exit.Exit<Option.Option<unknown>, unknown> | undefined
      const holder = {
        ...request("k", "holder", "1 second"),
        onLost: () => {
          again = Effect.runSyncExit(backend.tryAcquire(next))
        }
      }
      yield* backend.acquire(holder)
      assert.isTrue(yield* backend.revoke("k", "holder"), "a held key is revoked")
      assert.isTrue(again !== undefined && Exit.isSuccess(again) && Option.isSome(again.value), "the key is free")
      assert.isTrue(Option.isNone(yield* backend.tryAcquire(request("k", "other"))), "and it is held once")
      assert.strictEqual(yield* backend.release(next), "released")
      assert.isFalse(yield* backend.revoke("k", "next"), "a free key is not revoked")
    }))

  it.effect("each build of the layer has a store of its own", () =>
    Effect.gen(function*() {
      const { a, b } = yield* LockTest.Clients
      assert.isTrue(Option.isSome(yield* a.tryAcquire(request("k", "a"))))
      assert.isTrue(Option.isSome(yield* b.tryAcquire(request("k", "b"))), "another build does not know of it")
    }).pipe(Effect.provide(LockTest.Clients.layer(MemoryLock.layerBackend))))

  it.effect("layers over one backend exclude each other, and a revoked lock is lost", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryLock.make
      const one = Effect.provide(withLock("k", Effect.never), MemoryLock.layerShared(backend))
      const holding = yield* Effect.forkChild(one, { startImmediately: true })
      const other = withLockIfAvailable("k", Effect.void).pipe(Effect.provide(MemoryLock.layerShared(backend)))
      yield* TestClock.adjust("1 second")
      assert.isTrue(Option.isNone(yield* other), "the other program is refused")
      const { holder } = yield* backend.inspect("k")
      assert.isTrue(yield* backend.revoke("k", Option.getOrThrow(holder).owner ?? ""))
      const error = yield* Effect.flip(Fiber.join(holding))
      assert.strictEqual(error._tag, "LockLost", "the section that lost its lock is interrupted")
      assert.isTrue(Option.isSome(yield* other), "the key is free")
    }))
})
