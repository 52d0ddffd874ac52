import { type Lease, Lock, LockBackend, type LockRequest } from "@dlock/core"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, layer } from "@effect/vitest"
import { Clock, Context, Deferred, Duration, Effect, Exit, Fiber, Layer, Option } from "effect"
import { alarm, freshKey, newRequest, until } from "../requests.ts"
import { childrenOf, limit, lineOf, packetsReceived, roadTo, ZooKeeper } from "./support.ts"

/** A backend behind a proxy, and one that is not. */
const twoClients = Effect.fnUntraced(function*(
  sessionTimeout: Duration.Input,
  { commandTimeout = "10 seconds", prefix = "/locks" }: ZooKeeperLock.ClientOptions = {}
) {
  const { servers: [server = ""] } = yield* ZooKeeper
  const road = yield* roadTo(server)
  const options = { sessionTimeout, prefix, commandTimeout }
  const client = yield* ZooKeeperLock.make({ ...options, servers: [road.addr] })
  const other = yield* ZooKeeperLock.make({ ...options, servers: [server], sessionTimeout: "10 seconds" })
  return { road, client, other }
})

/** A clock whose wall time can be set. */
const settableClock = Effect.map(Clock.Clock, (clock) => {
  let ahead = 0
  const now = () => clock.currentTimeMillisUnsafe() + ahead
  const settable: Clock.Clock = {
    ...clock,
    sleep: (duration) => clock.sleep(duration),
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: clock.monotonicTimeNanos,
    currentTimeMillisUnsafe: now,
    currentTimeMillis: Effect.sync(now),
    currentTimeNanosUnsafe: () => BigInt(Math.round(now() * 1e6)),
    currentTimeNanos: Effect.sync(() => BigInt(Math.round(now() * 1e6)))
  }
  return { clock: settable, setForward: (by: number) => Effect.sync(() => ahead += by) }
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
          const begun = yield* Deferred.make<Lease>()
          const interrupted = yield* Deferred.make<void>()
          const section = (lease: Lease) =>
            Deferred.succeed(begun, lease).pipe(
              Effect.andThen(Effect.never),
              Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
            )
          const holder = yield* Effect.forkScoped(Effect.exit(lock.withLock(key, section)))
          const lease = yield* Deferred.await(begun)
          const waiting = yield* Effect.forkScoped(
            Effect.andThen(other.acquire(newRequest(key)), lease.isHeld)
          )
          yield* until(
            Effect.map(Effect.flatMap(ZooKeeper, ({ bare }) => lineOf(bare, key)), (line) => line.length === 2)
          )
          const timeout = yield* alarm(Duration.seconds(seconds))
          yield* road.blackhole()
          yield* limit("the section is interrupted")(Deferred.await(interrupted))
          assert.isUndefined(timeout.pollUnsafe(), "it ends within the session's timeout")
          assert.isFalse(
            yield* limit("the key of a dead holder becomes free")(Fiber.join(waiting)),
            "the lease ends before another owner has the key"
          )
          yield* road.pass
          const exit = yield* limit("the section's result is told")(Fiber.join(holder))
          assert.isTrue(Exit.isFailure(exit) && JSON.stringify(exit.cause).includes("LockLost"))
          const again = newRequest(freshKey())
          yield* limit("the backend comes back by itself")(
            Effect.retry(client.acquire(again), { times: 10 })
          )
          assert.strictEqual(yield* client.release(again), "released")
        })
    )

    it.effect("is told to holders that ask nothing", () =>
      Effect.gen(function*() {
        const { client, road } = yield* twoClients("2 seconds")
        const holders = Array.from({ length: 20 }, () => newRequest(freshKey()))
        yield* Effect.forEach(holders, client.acquire, { concurrency: "unbounded" })
        const timeout = yield* alarm("2 seconds")
        yield* road.blackhole()
        yield* limit("the loss is told")(Effect.forEach(holders, ({ lost }) => Deferred.await(lost)))
        assert.isUndefined(timeout.pollUnsafe(), "it is told within the session's timeout")
        assert.deepStrictEqual(new Set(holders.flatMap(({ losses }) => losses)), new Set(["expired"]))
      }))
  })

  describe("a disconnection", () => {
    it.effect("within the session's time loses nothing", () =>
      Effect.gen(function*() {
        const { client, other, road } = yield* twoClients("6 seconds")
        const holder = newRequest(freshKey())
        const waiter = newRequest(freshKey())
        yield* client.acquire(holder)
        const blocking = newRequest(waiter.key)
        yield* other.acquire(blocking)
        const waiting = yield* Effect.forkScoped(client.acquire(waiter))
        for (const fault of [road.cut, Effect.andThen(road.refuse, Effect.sleep("1 second")), road.cut]) {
          yield* fault
          yield* road.pass
          const validity = yield* client.renew(holder, {})
          assert.isTrue(Option.isSome(validity), "the lease goes on after a new connection")
        }
        assert.isTrue(Option.isNone(yield* other.tryAcquire(newRequest(holder.key))), "no other owner has the key")
        yield* Effect.sleep("6 seconds")
        assert.deepStrictEqual(holder.losses, [])
        assert.isTrue(
          Option.isNone(yield* other.tryAcquire(newRequest(holder.key))),
          "no other owner has the key later on"
        )
        assert.strictEqual(yield* other.release(blocking), "released")
        yield* limit("a waiter keeps its place")(Fiber.join(waiting))
        assert.strictEqual(yield* client.release(waiter), "released")
        assert.strictEqual(yield* client.release(holder), "released")
      }))
  })

  describe("a fresh renewal", () => {
    it.effect("after a suspension is younger than the question, which takes a new connection", () =>
      Effect.gen(function*() {
        const { servers: [server = ""] } = yield* ZooKeeper
        const { clock, setForward } = yield* settableClock
        yield* Effect.gen(function*() {
          const road = yield* roadTo(server)
          const client = yield* ZooKeeperLock.make({ servers: [road.addr], sessionTimeout: "20 seconds" })
          const request = newRequest(freshKey())
          yield* client.acquire(request)
          yield* Effect.sleep("1 second")
          const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)
          const suspended = yield* now
          yield* setForward(50)
          for (const pause of [0, 100, 1500]) {
            yield* Effect.sleep(pause)
            const asked = yield* now
            const renewed = Option.getOrThrow(yield* limit("it is renewed")(client.renew(request, { fresh: true })))
            // The backend asks so for two seconds, which a busy machine may miss.
            if (asked < suspended + 2000) {
              assert.isAtLeast(renewed.validFrom, asked, "nothing that was sent before counts")
            }
          }
          assert.deepStrictEqual(request.losses, [])
          yield* client.release(request)
        }).pipe(Effect.provideService(Clock.Clock, clock))
      }))

    it.effect("is one request for many locks", () =>
      Effect.gen(function*() {
        const { nodes: [node], servers } = yield* ZooKeeper
        const client = yield* ZooKeeperLock.make({ servers, sessionTimeout: "20 seconds" })
        const requests = Array.from({ length: 100 }, () => newRequest(freshKey()))
        yield* Effect.forEach(requests, client.acquire, { concurrency: "unbounded" })
        yield* Effect.sleep("200 millis")
        const port = node?.port ?? 0
        const once = Effect.fnUntraced(function*(renewal: { readonly fresh: boolean }) {
          const before = yield* packetsReceived(port)
          const renew = (request: LockRequest) => client.renew(request, renewal)
          const all = yield* Effect.forEach(requests, renew, { concurrency: "unbounded" })
          assert.isTrue(all.every(Option.isSome))
          return (yield* packetsReceived(port)) - before
        })
        // A heartbeat of the session itself may fall into one of them.
        const costOf = (renewal: { readonly fresh: boolean }) =>
          Effect.map(Effect.replicateEffect(once(renewal), 3), (costs) => Math.min(...costs))
        const old = yield* costOf({ fresh: false })
        const fresh = yield* costOf({ fresh: true })
        assert.isBelow(old, 3, "a renewal that may be old asks nothing")
        assert.isAbove(fresh, old, "a fresh one is asked for now")
        assert.isBelow(fresh, 10, "once or twice for all")
      }))
  })

  it.effect("of a process that was frozen is over for it before it does anything else", () =>
    Effect.gen(function*() {
      const { servers: [server = ""] } = yield* ZooKeeper
      const client = yield* ZooKeeperLock.make({ servers: [server], sessionTimeout: "1 second" })
      const rival = yield* ZooKeeperLock.make({ servers: [server], sessionTimeout: "20 seconds" })
      const holder = newRequest(freshKey())
      yield* client.acquire(holder)
      const next = newRequest(holder.key)
      const waiting = yield* Effect.forkScoped(rival.acquire(next))
      const free = newRequest(freshKey())
      yield* Effect.sleep("200 millis")
      // The answer comes while the process is frozen.
      const asking = yield* Effect.forkScoped(client.acquire(free), { startImmediately: true })
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000)
      const late = yield* limit("the late answer is dealt with")(Effect.option(Fiber.join(asking)))
      const now = Number(yield* Clock.monotonicTimeNanos) / 1e6
      if (Option.isSome(late)) assert.isBelow(now, late.value.validFrom + late.value.ttl, "what is granted is good now")
      yield* limit("the loss is told")(Deferred.await(holder.lost))
      yield* limit("the key goes to the next")(Fiber.join(waiting))
      assert.isTrue(Option.isNone(yield* client.renew(holder, {})))
      const isHeld = Option.isNone(yield* rival.tryAcquire(newRequest(free.key)))
      assert.isTrue(isHeld || Option.isNone(late), "what is granted is held")
      yield* client.release(free)
      yield* rival.release(next)
    }))

  it.effect("survives the restart of the server", () =>
    Effect.gen(function*() {
      const { nodes: [node] } = yield* ZooKeeper
      const { client, other } = yield* twoClients("10 seconds")
      const holder = newRequest(freshKey())
      const before = yield* client.acquire(holder)
      yield* node?.kill ?? Effect.void
      yield* node?.start ?? Effect.void
      assert.isTrue(Option.isSome(yield* limit("the session is confirmed")(client.renew(holder, {}))))
      assert.deepStrictEqual(holder.losses, [])
      assert.isTrue(Option.isNone(yield* other.tryAcquire(newRequest(holder.key))), "the key is still held")
      assert.strictEqual(yield* client.release(holder), "released")
      const after = yield* other.acquire(newRequest(holder.key))
      assert.isAbove(Number(after.tokens.first - before.tokens.first), 0, "tokens grow over a restart")
    }))

  it.effect(
    "carries 2,000 locks for the price of its heartbeats, also over a new connection",
    () =>
      Effect.gen(function*() {
        const { nodes: [node], bare } = yield* ZooKeeper
        const { client, road } = yield* twoClients("8 seconds", { prefix: "/many" })
        const holders = Array.from({ length: 2000 }, () => newRequest(freshKey()))
        yield* Effect.forEach(holders, client.acquire, { concurrency: 500, discard: true })
        // Each is watched, once.
        yield* Effect.sleep("1 second")
        const received = yield* packetsReceived(node?.port ?? 0)
        yield* Effect.sleep("4 seconds")
        const heartbeats = (yield* packetsReceived(node?.port ?? 0)) - received
        assert.isBelow(heartbeats, 12, "nothing is sent for each lock")
        yield* road.cut
        yield* Effect.sleep("8 seconds")
        assert.deepStrictEqual(holders.flatMap(({ losses }) => losses), [])
        assert.strictEqual((yield* childrenOf(bare, "/many")).length, 2000)
        const released = yield* Effect.forEach(holders, client.release, { concurrency: 500 })
        assert.isTrue(released.every((answer) => answer === "released"), "every lease was still ours")
      }),
    { timeout: 180_000 }
  )
})

layer(ZooKeeper.layer({ settings: ["maxSessionTimeout=2000"] }), { excludeTestServices: true, timeout: "1 minute" })(
  "a session, shorter than asked for,",
  (it) => {
    it.effect("that ends loses all leases at once, and waiters enter the line of the next session", () =>
      Effect.gen(function*() {
        const { client, other, road } = yield* twoClients("10 seconds", { commandTimeout: "10 seconds" })
        const holders = Array.from({ length: 50 }, () => newRequest(freshKey()))
        yield* Effect.forEach(holders, client.acquire, { concurrency: "unbounded" })
        const blocking = newRequest(freshKey())
        yield* other.acquire(blocking)
        const waiters = Array.from({ length: 5 }, () => newRequest(blocking.key))
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
          assert.isTrue(Option.isNone(yield* client.renew(holder, {})), "a lease of the old session is not renewed")
          assert.strictEqual(yield* client.release(holder), "gone", "nor is there anything to release")
        }
        yield* other.release(blocking)
        const released = yield* limit("waiters are served after the session changed")(Fiber.joinAll(waiting))
        assert.isTrue(released.every((answer) => answer === "released"))
      }))
  }
)
