/**
 * What the backend survives, and what it reports.
 */
import { Lock, LockLost } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Option } from "effect"
import { proxy } from "../harness/Proxy.ts"
import { redis } from "../harness/RedisServer.ts"
import type { Server } from "../harness/Server.ts"
import { attempt, connect, millis } from "./client.ts"
import { freezer } from "./freezer.ts"

const lockOn = (addr: string) => Effect.map(Layer.build(RedisLock.layer({ addrs: [addr] })), Context.get(Lock))

/** Forgets everything and comes back. */
const restartEmpty = (server: Server) => server.kill.pipe(Effect.andThen(server.wipe), Effect.andThen(server.start))

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
        Effect.andThen(Effect.andThen(server.kill, server.start), Effect.sleep("2 seconds")),
        { ttl: "3 seconds" }
      ))
      assert.isTrue(Exit.isSuccess(exit), "a lease survives a restart that keeps the data")
    }))

  it.live("without its data, while a key is held: the lease is lost, and the program is told", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const lock = yield* lockOn(server.addr)
      const [exit, time] = yield* millis(Effect.exit(
        lock.withLock("gone", Effect.andThen(restartEmpty(server), Effect.never), { ttl: "3 seconds" })
      ))
      assert.strictEqual(lossOf(exit)?.reason, "taken", "the next renewal finds out")
      assert.isBelow(time, 3000, "before the ttl is over")
      yield* lock.withLock("gone", Effect.void)
    }))

  it.live("without its data, while a key is waited for: the line is built again, and served", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      const holder = attempt("line")
      yield* backend.acquire(holder)
      const served: Array<number> = []
      const waiters = yield* Effect.forEach([1, 2, 3], (n) =>
        Effect.gen(function*() {
          const request = attempt("line")
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
      assert.deepStrictEqual(served.toSorted(), [1, 2, 3], "everybody is served")
    }))

  it.live("and is away for a moment: nobody notices", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      yield* server.kill
      const request = attempt("away")
      const asking = yield* Effect.forkScoped(backend.acquire(request))
      yield* Effect.sleep("500 millis")
      yield* server.start
      yield* Fiber.join(asking)
      assert.isTrue(yield* backend.release(request))
    }))

  it.live("and stays away: every verb fails within the command timeout, and works again when it is back", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const backend = yield* RedisLock.make({ addrs: [server.addr], commandTimeout: "1 second" })
      const held = attempt("down/held")
      yield* backend.acquire(held)
      yield* server.kill
      for (const verb of [backend.tryAcquire, backend.acquire, backend.renew, backend.release]) {
        const request = verb === backend.renew || verb === backend.release ? held : attempt("down")
        const [error, time] = yield* millis(Effect.flip<unknown, { readonly reason: string }, never>(verb(request)))
        assert.strictEqual(error.reason, "Unreachable")
        assert.isTrue(time > 900 && time < 1300, `within the command timeout (${time} ms)`)
      }
      yield* server.start
      yield* Effect.sleep("1500 millis")
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(attempt("back"))))
    }))
})

describe("a connection", () => {
  it.live("that is cut before an answer arrives: the request is sent again, and granted once", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const road = yield* proxy(server)
      const backend = yield* RedisLock.make({ addrs: [road.addr] })
      const request = attempt("cut")
      yield* road.dropNextReply
      const first = yield* backend.acquire(request)
      assert.strictEqual(yield* Effect.promise(() => bare.get("cut")), request.owner, "it is ours")
      const fence = yield* Effect.promise(() => bare.get(":dlock-fence"))
      assert.strictEqual(fence, `${first.fencingToken}`, "with the token of the grant")
      yield* road.dropNextReply
      assert.isTrue(Option.isSome(yield* backend.renew(request)), "a renewal survives it")
      yield* road.dropNextReply
      yield* backend.release(request)
      assert.isNull(yield* Effect.promise(() => bare.get("cut")), "a release survives it")
    }))

  it.live("that is cut on a refused attempt, whose lost request must not come back", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const road = yield* proxy(server)
      const backend = yield* RedisLock.make({ addrs: [road.addr] })
      const other = yield* RedisLock.make({ addrs: [server.addr] })
      yield* other.acquire(attempt("refused"))
      const request = attempt("refused")
      yield* road.dropNextReply
      assert.isTrue(Option.isNone(yield* backend.tryAcquire(request)))
      const marks = yield* Effect.promise(() => bare.keys("*dlock-void*"))
      assert.strictEqual(marks.length, 1, "what may still be under way is void")
    }))

  it.live("all of them killed, again and again: contenders still count exactly", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const locks = [yield* lockOn(server.addr), yield* lockOn(server.addr), yield* lockOn(server.addr)]
      let counter = 0
      const worker = (lock: Lock["Service"]) =>
        lock.withLock(
          "killed",
          Effect.gen(function*() {
            const seen = counter
            yield* Effect.sleep("2 millis")
            counter = seen + 1
          })
        )
      const killer = Effect.gen(function*() {
        yield* Effect.sleep("100 millis")
        yield* Effect.promise(() => bare.call("CLIENT", "KILL", "TYPE", "pubsub"))
        yield* Effect.sleep("100 millis")
        yield* Effect.promise(() => bare.call("CLIENT", "KILL", "TYPE", "normal"))
      })
      const killing = yield* Effect.forkScoped(Effect.forever(killer))
      yield* Effect.forEach(
        Array.from({ length: 300 }, (_, i) => locks[i % 3]),
        (lock) => lock === undefined ? Effect.void : worker(lock),
        { concurrency: 30, discard: true }
      )
      yield* Fiber.interrupt(killing)
      assert.strictEqual(counter, 300)
    }))

  it.live("whose message got lost: the hand-over is found at the next look", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      yield* backend.acquire(attempt("deaf"))
      const waiter = attempt("deaf")
      const waiting = yield* Effect.forkScoped(backend.acquire(waiter))
      yield* Effect.sleep("300 millis")
      // What a release does, except that it tells nobody.
      yield* Effect.promise(() => bare.zrem("{deaf}:dlock-line", waiter.owner))
      yield* Effect.promise(() => bare.set("deaf", waiter.owner, "PX", 1200))
      const [, time] = yield* millis(Fiber.join(waiting))
      assert.isBelow(time, 650, "one refresh")
    }))

  it.live("for messages that breaks while the key is handed over: nobody waits for long", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      const held = attempt("broken")
      yield* backend.acquire(held)
      const waiting = yield* Effect.forkScoped(backend.acquire(attempt("broken")))
      yield* Effect.sleep("300 millis")
      yield* Effect.promise(() => bare.call("CLIENT", "KILL", "TYPE", "pubsub"))
      yield* backend.release(held)
      const [, time] = yield* millis(Fiber.join(waiting))
      assert.isBelow(time, 650, "one refresh, or the new subscription")
    }))

  it.live("that is silently dead is replaced", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const road = yield* proxy(server)
      const backend = yield* RedisLock.make({ addrs: [road.addr], commandTimeout: "500 millis" })
      yield* road.drop("both")
      const error = yield* Effect.flip(backend.tryAcquire(attempt("dead")))
      assert.strictEqual(error.reason, "Timeout")
      yield* road.pass
      yield* Effect.sleep("300 millis")
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(attempt("alive"))))
    }))

  it.live("on which the server says nothing is replaced, also before it was ready", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const road = yield* freezer(server)
      const backend = yield* RedisLock.make({ addrs: [road.addr], commandTimeout: "500 millis" })
      yield* road.freeze
      yield* road.freezeNew(true)
      yield* Effect.flip(backend.tryAcquire(attempt("mute")))
      // By now the next connection stands, and was asked whether it is ready.
      yield* Effect.sleep("300 millis")
      yield* road.freezeNew(false)
      yield* Effect.sleep("700 millis")
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(attempt("mute"))))
    }))

  it.live("that freezes: the holder stops before the server gives the key to another", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const road = yield* proxy(server)
      const lock = yield* lockOn(road.addr)
      const other = yield* RedisLock.make({ addrs: [server.addr] })
      const started = yield* Deferred.make<void>()
      const now = Effect.clockWith((clock) => clock.monotonicTimeNanos)
      const stopped = yield* Deferred.make<bigint>()
      const holding = yield* Effect.forkScoped(Effect.exit(lock.withLock(
        "frozen",
        Effect.andThen(Deferred.succeed(started, undefined), Effect.never).pipe(
          Effect.onInterrupt(() => Effect.flatMap(now, (time) => Deferred.succeed(stopped, time)))
        ),
        { ttl: "1500 millis" }
      )))
      yield* Deferred.await(started)
      yield* road.blackhole("both")
      yield* other.acquire(attempt("frozen"))
      const given = yield* now
      assert.isTrue((yield* Deferred.await(stopped)) < given, "the program stops before another has the key")
      assert.strictEqual(lossOf(yield* Fiber.join(holding))?.reason, "expired", "by its own clock")
    }))
})

describe("a server", () => {
  it.live("that pauses its clients delays, and harms nobody", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      yield* Effect.promise(() => bare.client("PAUSE", 700, "ALL"))
      const request = attempt("paused")
      const [, time] = yield* millis(backend.acquire(request))
      assert.isTrue(time > 500, "it was paused")
      assert.isTrue(yield* backend.release(request))
    }))

  it.live("that is stopped fails every verb in time, and leaves nothing when it goes on", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const backend = yield* RedisLock.make({ addrs: [server.addr], commandTimeout: "500 millis" })
      yield* server.pause
      const request = attempt("stopped")
      const [error, time] = yield* millis(Effect.flip(backend.acquire(request)))
      assert.strictEqual(error.reason, "Timeout")
      assert.isBelow(time, 700)
      yield* Effect.exit(backend.release(request))
      yield* server.resume
      yield* Effect.sleep("700 millis")
      yield* Effect.exit(backend.release(request))
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(attempt("stopped"))), "the key is free")
    }))

  it.live("that is a read-only replica refuses, with a clear error", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const replica = yield* redis({ args: ["--replicaof", server.host, `${server.port}`] })
      const backend = yield* RedisLock.make({ addrs: [replica.addr] })
      const error = yield* Effect.flip(backend.acquire(attempt("replica")))
      assert.strictEqual(error.reason, "Rejected")
      assert.include(error.message, "READONLY")
    }))

  it.live("that is full refuses new locks; those that are held are renewed, handed over and released", () =>
    Effect.gen(function*() {
      const server = yield* redis()
      const bare = yield* connect(server.port)
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      const held = attempt("full/held")
      yield* backend.acquire(held)
      const next = attempt("full/held")
      const waiting = yield* Effect.forkScoped(backend.acquire(next))
      yield* Effect.sleep("300 millis")
      yield* Effect.promise(() => bare.config("SET", "maxmemory", "1"))
      const error = yield* Effect.flip(backend.acquire(attempt("full/new")))
      assert.strictEqual(error.reason, "Rejected")
      assert.include(error.message, "OOM")
      yield* Effect.sleep("1 second")
      assert.isTrue(Option.isSome(yield* backend.renew(held)), "renew")
      assert.isTrue(yield* backend.release(held), "release")
      yield* Fiber.join(waiting)
      assert.isTrue(yield* backend.release(next), "release of who waited")
      yield* Effect.promise(() => bare.config("SET", "maxmemory", "0"))
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(attempt("full/new"))), "and is itself again")
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
