/**
 * What the backend survives, and what it reports.
 */
import { Lock, LockLost } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, Layer, Option } from "effect"
import { proxy } from "../harness/Proxy.ts"
import { redis } from "../harness/RedisServer.ts"
import type { Server } from "../harness/Server.ts"
import { connect, millis, newRequest, until } from "./client.ts"
import { relay } from "./relay.ts"

const lockOn = (addr: string) => Effect.map(Layer.build(RedisLock.layer({ addrs: [addr] })), Context.get(Lock))

/** Forgets everything and comes back. */
/** A section in which that happens is interrupted as soon as the new server answers, which is before it is known to be ready. */
const restartEmpty = (server: Server) =>
  Effect.uninterruptible(server.kill.pipe(Effect.andThen(server.wipe), Effect.andThen(server.start)))

const lossOf = (exit: Exit.Exit<unknown, unknown>): LockLost | undefined => {
  const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
  return error instanceof LockLost ? error : undefined
}

describe("a server that is restarted", () => {
  it.live("with its data, while a key is held: the lease goes on", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const lock = yield* lockOn(server.addr)
      const exit = yield* Effect.exit(lock.withLock(
        "kept",
        Effect.andThen(Effect.andThen(server.kill, server.start), Effect.sleep("4 seconds")),
        { ttl: "9 seconds" }
      ))
      assert.isTrue(Exit.isSuccess(exit), "a lease survives a restart that keeps the data")
    }))

  it.live("without its data, while a key is held: the lease is lost, and the program is told", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const lock = yield* lockOn(server.addr)
      const exit = yield* Effect.exit(
        lock.withLock("gone", Effect.andThen(restartEmpty(server), Effect.never), { ttl: "9 seconds" })
      )
      assert.strictEqual(lossOf(exit)?.reason, "taken", "the next renewal finds out")
      yield* lock.withLock("gone", Effect.void)
    }))

  it.live("without its data, while a key is waited for: the line is built again, and served", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      const holder = newRequest("line")
      yield* backend.acquire(holder)
      const served: Array<number> = []
      const waiters = yield* Effect.forEach([1, 2, 3], (n) =>
        Effect.gen(function*() {
          const request = newRequest("line")
          const fiber = yield* Effect.forkScoped(
            Effect.tap(backend.acquire(request), () => {
              served.push(n)
              return backend.release(request)
            })
          )
          yield* Effect.sleep("50 millis")
          return fiber
        }))
      yield* restartEmpty(server)
      yield* Effect.forEach(waiters, Fiber.join)
      assert.deepStrictEqual(served.toSorted(), [1, 2, 3], "every waiter is served")
    }))

  it.live("and is away for a moment: requests are answered late", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      yield* server.kill
      const request = newRequest("away")
      const asking = yield* Effect.forkScoped(backend.acquire(request))
      yield* Effect.sleep("500 millis")
      yield* server.start
      yield* Fiber.join(asking)
      assert.strictEqual(yield* backend.release(request), "released")
    }))
})

describe("a connection", () => {
  it.live("that is cut on a refused attempt, whose lost request must not come back", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const road = yield* proxy(server)
      const backend = yield* RedisLock.make({ addrs: [road.addr] })
      const other = yield* RedisLock.make({ addrs: [server.addr] })
      yield* other.acquire(newRequest("refused"))
      const request = newRequest("refused")
      yield* road.dropNextReply
      assert.isTrue(Option.isNone(yield* backend.tryAcquire(request)))
      const marks = yield* Effect.promise(() => bare.keys("*dlock-void*"))
      assert.strictEqual(marks.length, 1, "what may still be under way is void")
    }))

  it.live("whose message got lost: the hand-over is found at the next look", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      yield* backend.acquire(newRequest("deaf"))
      const waiter = newRequest("deaf")
      const waiting = yield* Effect.forkScoped(backend.acquire(waiter))
      yield* Effect.sleep("300 millis")
      // What a release does, except that it tells no waiter.
      yield* Effect.promise(() => bare.zrem("{deaf}:dlock-line", waiter.owner))
      yield* Effect.promise(() => bare.set("deaf", waiter.owner, "PX", 60_000))
      const [, time] = yield* millis(Fiber.join(waiting))
      assert.isBelow(time, 10_000, "at the next look, long before the ttl is over")
    }))

  it.live("for messages that breaks while the key is handed over: no waiter waits for long", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      const held = newRequest("broken")
      yield* backend.acquire(held)
      const waiting = yield* Effect.forkScoped(backend.acquire(newRequest("broken")))
      yield* Effect.sleep("300 millis")
      yield* Effect.promise(() => bare.call("CLIENT", "KILL", "TYPE", "pubsub"))
      yield* backend.release(held)
      const [, time] = yield* millis(Fiber.join(waiting))
      assert.isBelow(time, 10_000, "one refresh, or the new subscription, long before the ttl is over")
    }))

  it.live("on which the server says nothing is replaced, also before it was ready", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const road = yield* relay(server)
      const backend = yield* RedisLock.make({ addrs: [road.addr], commandTimeout: "500 millis" })
      yield* road.freeze
      yield* road.freezeNew(true)
      yield* Effect.flip(backend.tryAcquire(newRequest("mute")))
      // By now the next connection stands, and was asked whether it is ready.
      yield* Effect.sleep("300 millis")
      yield* road.freezeNew(false)
      yield* Effect.sleep("700 millis")
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(newRequest("mute"))))
    }))

  it.live("that falls silent is replaced before a lease of five seconds ends", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const road = yield* relay(server)
      const lock = yield* lockOn(road.addr)
      const exit = yield* Effect.exit(
        lock.withLock("k", Effect.andThen(road.freeze, Effect.sleep("7 seconds")), { ttl: "5 seconds" })
      )
      assert.isTrue(Exit.isSuccess(exit), "a renewal over another connection came in time")
    }))
})

describe("a server", () => {
  for (const writable of [false, true]) {
    it.live(`that is a ${writable ? "writable" : "read-only"} replica is refused when the layer is built`, () =>
      Effect.gen(function*() {
        const server = yield* redis()
        const args = ["--replicaof", server.host, `${server.port}`, "--replica-read-only", writable ? "no" : "yes"]
        const replica = yield* redis({ args })
        const [error, time] = yield* millis(Effect.flip(RedisLock.make({ addrs: [replica.addr] })))
        assert.strictEqual(error.reason, "Unsupported")
        assert.include(error.message, `replica of ${server.host}:${server.port}`)
        assert.include(error.message, replica.addr)
        assert.isBelow(time, 5000, "without waiting for the command timeout")
      }))
  }

  it.live("that becomes a replica for a moment is waited for by every verb, and by a waiter", () =>
    Effect.gen(function*() {
      const master = yield* redis()
      const server = yield* redis({ args: ["--repl-diskless-sync-delay", "0"] })
      const bare = yield* connect(server.port)
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      const [held, next] = [newRequest("demoted"), newRequest("demoted")]
      yield* backend.acquire(held)
      const waiting = yield* Effect.forkScoped(backend.acquire(next))
      yield* Effect.sleep("300 millis")
      // A replica that keeps its data: it does not get to copying.
      yield* master.kill
      yield* Effect.promise(() => bare.call("REPLICAOF", master.host, `${master.port}`))
      const asking = yield* Effect.forkScoped(backend.tryAcquire(newRequest("demoted/other")))
      const renewing = yield* Effect.forkScoped(backend.renew(held, {}))
      yield* Effect.sleep("1 second")
      yield* Effect.promise(() => bare.call("REPLICAOF", "NO", "ONE"))
      assert.isTrue(Option.isSome(yield* Fiber.join(asking)), "tryAcquire")
      assert.isTrue(Option.isSome(yield* Fiber.join(renewing)), "renew")
      assert.strictEqual(yield* backend.release(held), "released")
      yield* Effect.timeout(Fiber.join(waiting), "10 seconds")
      yield* backend.release(next)
    }))

  it.live("that is a replica for long: every verb is Unreachable after the command timeout, and nothing goes on afterwards", () =>
    Effect.gen(function*() {
      const master = yield* redis()
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const lock = yield* lockOn(server.addr)
      const commands = Effect.promise(async () =>
        Number(/total_commands_processed:(\d+)/.exec(await bare.info("stats"))?.[1])
      )
      yield* master.kill
      yield* Effect.promise(() => bare.call("REPLICAOF", master.host, `${master.port}`))
      const attempts = Array.from({ length: 100 }, (_, i) => lock.withLockIfAvailable(`refused/${i}`, Effect.void))
      const errors = yield* Effect.forEach(attempts, (attempt) => Effect.flip(attempt), { concurrency: "unbounded" })
      assert.deepStrictEqual([...new Set(errors.map((error) => "reason" in error && error.reason))], ["Unreachable"])
      const before = yield* commands
      yield* Effect.sleep("3 seconds")
      // The server is looked at now and then until it is a master again.
      assert.isBelow((yield* commands) - before, 60, "what was only refused owes no release")
    }))

  it.live("that is full refuses new locks; those that are held are renewed, handed over and released", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      const held = newRequest("full/held")
      yield* backend.acquire(held)
      const next = newRequest("full/held")
      const waiting = yield* Effect.forkScoped(backend.acquire(next))
      yield* until(Effect.map(Effect.promise(() => bare.zcard("{full/held}:dlock-line")), (length) => length === 1))
      yield* Effect.promise(() => bare.config("SET", "maxmemory", "1"))
      const error = yield* Effect.flip(backend.acquire(newRequest("full/new")))
      assert.strictEqual(error.reason, "Rejected")
      assert.include(error.message, "OOM")
      yield* Effect.sleep("1 second")
      assert.isTrue(Option.isSome(yield* backend.renew(held, {})), "renew")
      assert.strictEqual(yield* backend.release(held), "released", "release")
      yield* Fiber.join(waiting)
      assert.strictEqual(yield* backend.release(next), "released", "release of the waiter")
      yield* Effect.promise(() => bare.config("SET", "maxmemory", "0"))
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(newRequest("full/new"))), "and is itself again")
    }))

  it.live("whose scripts are flushed at any time is given them again", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const locks = [yield* lockOn(server.addr), yield* lockOn(server.addr)]
      const flushing = yield* Effect.forkScoped(Effect.forever(
        Effect.andThen(Effect.promise(() => bare.script("FLUSH")), Effect.sleep("3 millis"))
      ))
      let counter = 0
      yield* Effect.forEach(
        Array.from({ length: 200 }, (_, i) => locks[i % 2]),
        (lock) => lock?.withLock("flushed", Effect.sync(() => counter++)) ?? Effect.void,
        { concurrency: 20, discard: true }
      )
      yield* Fiber.interrupt(flushing)
      assert.strictEqual(counter, 200)
    }))

  it.live("that loses the counter, or everything, gives greater tokens all the same", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const lock = yield* lockOn(server.addr)
      const token = lock.withLock("tokens", (lease) => Effect.succeed(lease.fencingToken))
      const tokens = [
        yield* token,
        yield* Effect.andThen(Effect.promise(() => bare.del(":dlock-fence")), token),
        yield* Effect.andThen(Effect.promise(() => bare.flushall()), token),
        yield* Effect.andThen(restartEmpty(server), token),
        yield* token
      ]
      assert.deepStrictEqual(tokens, [...new Set(tokens)].toSorted((a, b) => a < b ? -1 : 1), "strictly growing")
    }))

  it.live("whose clock was set back gives greater tokens, as long as it has the last one", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const lock = yield* lockOn(server.addr)
      // As if the last token had been given an hour ahead of the clock.
      const ahead = BigInt(Date.now() + 3_600_000) * 1000n
      yield* Effect.promise(() => bare.set(":dlock-fence", `${ahead}`))
      const token = lock.withLock("back", (lease) => Effect.succeed(lease.fencingToken))
      assert.strictEqual(yield* token, ahead + 1n)
      assert.strictEqual(yield* token, ahead + 2n)
    }))
})
