import { Lock, LockBackend } from "@dlock/core"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, layer } from "@effect/vitest"
import { Clock, Context, Deferred, Duration, Effect, Exit, Fiber, Layer, Option } from "effect"
import { attempt, freshKey, millis, until } from "../requests.ts"
import { childrenOf, lineOf, packetsReceived, roadTo, ZooKeeper } from "./support.ts"

const limit = (property: string) =>
  Effect.timeoutOrElse({
    duration: "30 seconds",
    orElse: () => Effect.sync(() => assert.fail(`${property}, within 30 seconds`))
  })

/** A backend behind a proxy, and one that is not. */
const twoClients = Effect.fnUntraced(function*(
  sessionTimeout: Duration.Input,
  { commandTimeout = "3 seconds", prefix = "/locks" }: ZooKeeperLock.ClientOptions = {}
) {
  const { servers: [server = ""] } = yield* ZooKeeper
  const road = yield* roadTo(server)
  const options = { sessionTimeout, prefix, commandTimeout }
  const client = yield* ZooKeeperLock.make({ ...options, servers: [road.addr] })
  const other = yield* ZooKeeperLock.make({ ...options, servers: [server], sessionTimeout: "10 seconds" })
  return { road, client, other }
})

layer(ZooKeeper.layer({}), { excludeTestServices: true, timeout: "1 minute" })("the session", (it) => {
  describe("a silent network", () => {
    it.effect.each([2, 6])(
      "of a session of %s seconds interrupts the section before the server can end it",
      (seconds) =>
        Effect.gen(function*() {
          const { client, other, road } = yield* twoClients(Duration.seconds(seconds))
          const context = yield* Layer.build(Layer.provide(Lock.layer, Layer.succeed(LockBackend, client)))
          const lock = Context.get(context, Lock)
          const key = freshKey()
          const begun = yield* Deferred.make<void>()
          const interruptedAt = yield* Deferred.make<bigint>()
          const now = Clock.monotonicTimeNanos
          const section = Deferred.succeed(begun, undefined).pipe(
            Effect.andThen(Effect.never),
            Effect.onInterrupt(() => Effect.flatMap(now, (at) => Deferred.succeed(interruptedAt, at)))
          )
          const holder = yield* Effect.forkScoped(Effect.exit(lock.withLock(key, section)))
          yield* Deferred.await(begun)
          const waiting = yield* Effect.forkScoped(Effect.andThen(other.acquire(attempt(key)), now))
          yield* until(
            Effect.map(Effect.flatMap(ZooKeeper, ({ bare }) => lineOf(bare, key)), (line) => line.length === 2)
          )
          const silentAt = yield* now
          yield* road.blackhole()
          const grantedAt = yield* limit("a dead holder's key becomes free")(Fiber.join(waiting))
          const interrupted = yield* limit("the section is interrupted")(Deferred.await(interruptedAt))
          assert.isBelow(Number(interrupted - grantedAt), 0, "the section ends before somebody else has the key")
          assert.isBelow(Number(interrupted - silentAt), seconds * 1e9, "it ends within the session's timeout")
          yield* road.pass
          const exit = yield* limit("the section's result is told")(Fiber.join(holder))
          assert.isTrue(Exit.isFailure(exit) && JSON.stringify(exit.cause).includes("LockLost"))
          const again = attempt(freshKey())
          yield* limit("the backend comes back by itself")(
            Effect.retry(client.acquire(again), { times: 10 })
          )
          assert.isTrue(yield* client.release(again))
        })
    )

    it.effect("is told to holders who ask nobody", () =>
      Effect.gen(function*() {
        const { client, road } = yield* twoClients("2 seconds")
        const holders = Array.from({ length: 20 }, () => attempt(freshKey()))
        yield* Effect.forEach(holders, client.acquire, { concurrency: "unbounded" })
        yield* road.blackhole()
        const [, took] = yield* millis(
          limit("the loss is told")(Effect.forEach(holders, ({ lost }) => Deferred.await(lost)))
        )
        assert.isBelow(took, 2000, "it is told within the session's timeout")
        assert.deepStrictEqual(new Set(holders.flatMap(({ losses }) => losses)), new Set(["expired"]))
      }))
  })

  describe("a disconnection", () => {
    it.effect("within the session's time loses nothing", () =>
      Effect.gen(function*() {
        const { client, other, road } = yield* twoClients("6 seconds")
        const holder = attempt(freshKey())
        const waiter = attempt(freshKey())
        const { fencingToken } = yield* client.acquire(holder)
        const blocking = attempt(waiter.key)
        yield* other.acquire(blocking)
        const waiting = yield* Effect.forkScoped(client.acquire(waiter))
        for (const fault of [road.cut, Effect.andThen(road.refuse, Effect.sleep("1 second")), road.cut]) {
          yield* fault
          yield* road.pass
          const validity = yield* client.renew(holder)
          assert.isTrue(Option.isSome(validity), "the lease goes on after a new connection")
        }
        assert.isTrue(Option.isNone(yield* other.tryAcquire(attempt(holder.key))), "nobody else has the key")
        yield* Effect.sleep("6 seconds")
        assert.deepStrictEqual(holder.losses, [])
        assert.isTrue(Option.isNone(yield* other.tryAcquire(attempt(holder.key))), "nobody else has the key later on")
        const again = yield* client.tryAcquire(holder)
        assert.strictEqual(Option.getOrThrow(again).fencingToken, fencingToken, "it is the same lease")
        assert.isTrue(yield* other.release(blocking))
        yield* limit("a waiter keeps its place")(Fiber.join(waiting))
        assert.isTrue(yield* client.release(waiter))
        assert.isTrue(yield* client.release(holder))
      }))

    it.effect("beyond it loses all leases at once, and waiters enter the line of the next session", () =>
      Effect.gen(function*() {
        const { client, other, road } = yield* twoClients("2 seconds", { commandTimeout: "10 seconds" })
        const holders = Array.from({ length: 50 }, () => attempt(freshKey()))
        yield* Effect.forEach(holders, client.acquire, { concurrency: "unbounded" })
        const blocking = attempt(freshKey())
        yield* other.acquire(blocking)
        const waiters = Array.from({ length: 5 }, () => attempt(blocking.key))
        const waiting = yield* Effect.forEach(
          waiters,
          (waiter) => Effect.forkScoped(Effect.andThen(client.acquire(waiter), client.release(waiter)))
        )
        const { bare } = yield* ZooKeeper
        yield* until(Effect.map(lineOf(bare, blocking.key), (line) => line.length === 6))
        yield* road.refuse
        yield* until(Effect.map(lineOf(bare, blocking.key), (line) => line.length === 1))
        yield* road.pass
        yield* limit("every holder is told")(Effect.forEach(holders, ({ lost }) => Deferred.await(lost)))
        yield* until(Effect.map(lineOf(bare, blocking.key), (line) => line.length === 6))
        for (const holder of holders) {
          assert.isTrue(Option.isNone(yield* client.renew(holder)), "a lease of the old session is not renewed")
          assert.isFalse(yield* client.release(holder), "nor is there anything to give back")
        }
        yield* other.release(blocking)
        const released = yield* limit("waiters are served after the session changed")(Fiber.joinAll(waiting))
        assert.isFalse(released.includes(false))
      }))
  })

  it.effect("of a process that was frozen is over for it before it does anything else", () =>
    Effect.gen(function*() {
      const { servers: [server = ""] } = yield* ZooKeeper
      const client = yield* ZooKeeperLock.make({ servers: [server], sessionTimeout: "1 second" })
      const rival = yield* ZooKeeperLock.make({ servers: [server], sessionTimeout: "20 seconds" })
      const holder = attempt(freshKey())
      yield* client.acquire(holder)
      const next = attempt(holder.key)
      const waiting = yield* Effect.forkScoped(rival.acquire(next))
      const free = attempt(freshKey())
      yield* Effect.sleep("200 millis")
      // The answer comes while the process is frozen.
      const asking = yield* Effect.forkScoped(client.acquire(free), { startImmediately: true })
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000)
      const late = yield* limit("the late answer is dealt with")(Fiber.join(asking))
      const now = yield* Clock.monotonicTimeNanos
      assert.isTrue(now < late.validFrom + Duration.toNanosUnsafe(late.ttl), "what is granted is good now")
      yield* limit("the loss is told")(Deferred.await(holder.lost))
      yield* limit("the key goes to the next")(Fiber.join(waiting))
      assert.isTrue(Option.isNone(yield* client.renew(holder)))
      assert.isTrue(Option.isNone(yield* rival.tryAcquire(attempt(free.key))), "and it is held")
      yield* client.release(free)
      yield* rival.release(next)
    }))

  it.effect("survives the restart of the server", () =>
    Effect.gen(function*() {
      const { nodes: [node] } = yield* ZooKeeper
      const { client, other } = yield* twoClients("10 seconds")
      const holder = attempt(freshKey())
      const before = yield* client.acquire(holder)
      yield* node?.kill ?? Effect.void
      yield* node?.start ?? Effect.void
      assert.isTrue(Option.isSome(yield* limit("the session is confirmed")(client.renew(holder))))
      assert.deepStrictEqual(holder.losses, [])
      assert.isTrue(Option.isNone(yield* other.tryAcquire(attempt(holder.key))), "the key is still held")
      assert.isTrue(yield* client.release(holder))
      const after = yield* other.acquire(attempt(holder.key))
      assert.isAbove(Number(after.fencingToken - before.fencingToken), 0, "tokens grow over a restart")
    }))

  it.effect(
    "carries 10,000 locks for the price of its heartbeats, also over a new connection",
    () =>
      Effect.gen(function*() {
        const { nodes: [node], bare } = yield* ZooKeeper
        const { client, road } = yield* twoClients("8 seconds", { prefix: "/many" })
        const holders = Array.from({ length: 10_000 }, () => attempt(freshKey()))
        yield* Effect.forEach(holders, client.acquire, { concurrency: 500, discard: true })
        const received = yield* packetsReceived(node?.port ?? 0)
        yield* Effect.sleep("4 seconds")
        const heartbeats = (yield* packetsReceived(node?.port ?? 0)) - received
        assert.isBelow(heartbeats, 12, "nothing is sent for each lock")
        yield* road.cut
        yield* Effect.sleep("8 seconds")
        assert.deepStrictEqual(holders.flatMap(({ losses }) => losses), [])
        assert.strictEqual((yield* childrenOf(bare, "/many")).length, 10_000)
        const released = yield* Effect.forEach(holders, client.release, { concurrency: 500 })
        assert.isTrue(released.every((was) => was), "every lease was still ours")
      }),
    { timeout: 60_000 }
  )
})
