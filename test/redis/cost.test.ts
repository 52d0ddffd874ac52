/**
 * What a lock costs the server, counted.
 */
import { Lock, type LockBackend } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer } from "effect"
import type { Redis } from "ioredis"
import { least, millis, newRequest, until } from "./client.ts"
import { RedisServer } from "./support.ts"

/** Every command that clients send while `effect` runs; what scripts call is not counted. */
const commandsOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.gen(function*() {
    const { bare } = yield* RedisServer
    const commands: Array<ReadonlyArray<string>> = []
    const monitor = yield* Effect.acquireRelease(
      Effect.promise(() => bare.monitor()),
      (monitor: Redis) => Effect.sync(() => monitor.disconnect())
    )
    monitor.on("monitor", (_time: string, args: ReadonlyArray<string>, source: string) => {
      if (source !== "lua") commands.push(args)
    })
    yield* effect
    yield* Effect.promise(() => bare.ping("over"))
    // What a lock does in the background may come behind it.
    const end = () => commands.findIndex(([, argument]) => argument === "over")
    yield* until(Effect.sync(() => end() >= 0))
    return commands.slice(0, end())
  }))

/** How many scripts it calls and nothing else, where no earlier lock comes in between, and no lock is held for long. */
const scriptsOf = <A, E, R>(count: number, effect: Effect.Effect<A, E, R>) =>
  least(count + 1, () =>
    Effect.map(
      commandsOf(effect),
      (commands) => commands.every(([name]) => name === "evalsha") ? commands.length : Infinity
    ))

/** Every command, those that scripts call included. */
const allCommandsOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const { bare } = yield* RedisServer
    const counts = Effect.promise(async () =>
      [...(await bare.info("commandstats")).matchAll(/^cmdstat_([a-z|]+):calls=(\d+)/gm)]
        .filter(([, name]) => name !== "info" && name !== "pubsub|numsub" && name !== "ping")
        .reduce((sum, [, , calls]) => sum + Number(calls), 0)
    )
    const before = yield* counts
    yield* effect
    return (yield* counts) - before
  })

/** How often a waiter in the server's line looks. */
const refreshMillis = 600

/** The keys of an `evalsha`. */
const keysOf = (args: ReadonlyArray<string>) => args.slice(3, 3 + Number(args[2]))

const makeLock = Effect.gen(function*() {
  const { server } = yield* RedisServer
  return Context.get(yield* Layer.build(RedisLock.layer({ addrs: [server.addr] })), Lock)
})

layer(RedisServer.layerOwn, { excludeTestServices: true, timeout: "2 minutes" })("what a lock costs", (it) => {
  it.effect("an uncontended pair is two round trips", () =>
    Effect.gen(function*() {
      const lock = yield* makeLock
      const pair = lock.withLock("cost/pair", Effect.void)
      yield* pair
      assert.strictEqual(yield* scriptsOf(20, Effect.repeat(pair, { times: 9 })), 20)
    }))

  it.effect("a lock that was contended once is two round trips again", () =>
    Effect.gen(function*() {
      const [one, other] = [yield* makeLock, yield* makeLock]
      yield* Effect.forEach(
        [one, other],
        (lock) => lock.withLock("cost/again", Effect.sleep("20 millis")),
        { concurrency: "unbounded" }
      )
      const pairs = Effect.forEach([one, other], (lock) => lock.withLock("cost/again", Effect.void))
      assert.strictEqual(yield* scriptsOf(4, pairs), 4)
    }))

  for (const waiters of [1, 16, 256]) {
    it.effect(`a hand-over is four commands or less with ${waiters} waiting`, () =>
      Effect.gen(function*() {
        const locks = [yield* makeLock, yield* makeLock]
        let handOvers = 0
        const worker = (lock: Lock["Service"]) =>
          Effect.whileLoop({
            while: () => handOvers < 300,
            body: () => lock.withLock(`cost/${waiters}`, Effect.sync(() => handOvers++)),
            step: () => {}
          })
        const all = Effect.forEach(
          Array.from({ length: waiters + 1 }, (_, i) => locks[i % 2]),
          (lock) => lock === undefined ? Effect.void : worker(lock),
          { concurrency: "unbounded" }
        )
        const measured = Effect.gen(function*() {
          handOvers = 0
          const [commands, time] = yield* millis(commandsOf(all))
          // A waiter also looks now and then, however long a busy machine takes for the hand-overs.
          const looks = Math.ceil(time / refreshMillis) * locks.length
          return (commands.length - looks) / handOvers
        })
        assert.isBelow(yield* least(4.01, () => measured), 4.01, "commands per hand-over, between two processes")
      }))
  }

  for (const waiters of [1, 16, 256]) {
    it.effect(`a hand-over is four commands or less with ${waiters} in the server's line`, () =>
      Effect.gen(function*() {
        const { server } = yield* RedisServer
        const backends = [
          yield* RedisLock.make({ addrs: [server.addr] }),
          yield* RedisLock.make({ addrs: [server.addr] })
        ]
        let handOvers = 0
        const contend = (backend: LockBackend["Service"]) =>
          Effect.gen(function*() {
            while (handOvers < 300) {
              const request = newRequest(`cost/line ${waiters}`)
              yield* backend.acquire(request)
              handOvers++
              yield* backend.release(request)
            }
          })
        const all = Effect.forEach(
          Array.from({ length: waiters + 1 }, (_, i) => backends[i % 2]),
          (backend) => backend === undefined ? Effect.void : contend(backend),
          { concurrency: "unbounded" }
        )
        const measured = Effect.gen(function*() {
          handOvers = 0
          const [commands, time] = yield* millis(commandsOf(all))
          const looks = Math.ceil(time / refreshMillis) * waiters
          return (commands.length - looks) / handOvers
        })
        assert.isBelow(yield* least(4.01, () => measured), 4.01, "commands per hand-over")
      }))
  }

  it.effect("an uncontended pair is nine commands, those inside the scripts included", () =>
    Effect.gen(function*() {
      const { server } = yield* RedisServer
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      const pair = Effect.gen(function*() {
        const request = newRequest("cost/nine")
        yield* backend.acquire(request)
        yield* backend.release(request)
      })
      yield* pair
      assert.strictEqual(yield* least(10, () => allCommandsOf(pair)), 9)
    }))

  it.effect("a hand-over between processes is 25 commands at most, those inside the scripts included", () =>
    Effect.gen(function*() {
      const { server } = yield* RedisServer
      const backends = yield* Effect.replicateEffect(RedisLock.make({ addrs: [server.addr] }), 2)
      let handOvers = 0
      const contend = (backend: LockBackend["Service"]) =>
        Effect.gen(function*() {
          while (handOvers < 200) {
            const request = newRequest("cost/hand-over")
            yield* backend.acquire(request)
            handOvers++
            yield* backend.release(request)
          }
        })
      const all = Effect.forEach(backends, contend, { concurrency: "unbounded" })
      yield* all
      const measured = Effect.suspend(() => {
        handOvers = 0
        return Effect.map(allCommandsOf(all), (commands) => commands / handOvers)
      })
      // A key that a busy machine holds for longer costs more.
      assert.isBelow(yield* least(25.01, () => measured), 25.01)
    }))

  it.effect("renewals that fall due together go out together", () =>
    Effect.gen(function*() {
      const lock = yield* makeLock
      const count = 200
      const held = Effect.forEach(Array.from({ length: count }, (_, i) => `cost/renew ${i}`), (key) =>
        lock.acquire(key, { ttl: "3 seconds" }), { concurrency: "unbounded" })
      // Longer than a third of the ttl.
      const commands = yield* commandsOf(Effect.andThen(held, Effect.sleep("1500 millis")))
      // A renewal names nothing but the locks themselves.
      const renewals = commands.filter(([name, ...args]) =>
        name === "evalsha" && keysOf([name, ...args]).every((key) =>
          key.startsWith("cost/renew")
        )
      )
      const renewed = new Set(renewals.flatMap(keysOf))
      assert.strictEqual(renewed.size, count, "each was renewed")
      assert.isAtMost(renewals.length, count / 4, "many by one command")
    }))

  it.effect("one connection for messages, however many keys are waited for", () =>
    Effect.gen(function*() {
      const { bare, server } = yield* RedisServer
      const holder = yield* RedisLock.make({ addrs: [server.addr] })
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      const connections = Effect.promise(async () => String(await bare.client("LIST")).trim().split("\n").length)
      const subscriptions = Effect.promise(() => bare.pubsub("CHANNELS", "dlock-wake/*"))
      const before = [yield* connections, (yield* subscriptions).length] as const
      const keys = Array.from({ length: 100 }, (_, i) => newRequest(`cost/keys ${i}`))
      yield* Effect.forEach(keys, (key) => holder.acquire(key))
      yield* Effect.forEach(keys, ({ key }) => Effect.forkScoped(backend.acquire(newRequest(key))))
      yield* Effect.sleep("300 millis")
      // The holder listens, too: it is told that others wait.
      assert.strictEqual(yield* connections, before[0] + 2, "one more connection for each of the two")
      assert.strictEqual((yield* subscriptions).length, before[1] + 2, "one more channel for each")
    }))

  it.effect("a holder that lingers is told from the first moment that others wait", () =>
    Effect.gen(function*() {
      const { server } = yield* RedisServer
      const [one, other] = [
        yield* RedisLock.make({ addrs: [server.addr] }),
        yield* RedisLock.make({ addrs: [server.addr] })
      ]
      const wait = Effect.fnUntraced(function*(n: number) {
        const holder = { ...newRequest(`lingers/${n}`), lingers: true }
        const next = newRequest(holder.key)
        yield* one.acquire(holder)
        const waiting = yield* Effect.forkScoped(other.acquire(next), { startImmediately: true })
        const [, time] = yield* millis(Deferred.await(holder.wanted))
        yield* one.release(holder)
        yield* Fiber.join(waiting)
        yield* other.release(next)
        return time
      })
      assert.isBelow(yield* least(15, wait), 15, "others are told after 20 milliseconds")
    }))

  it.effect("nothing is left that does not expire by itself", () =>
    Effect.gen(function*() {
      const { bare } = yield* RedisServer
      const [one, other] = [yield* makeLock, yield* makeLock]
      const uses = Array.from({ length: 80 }, (_, i) => [i % 2 === 0 ? one : other, `left/${i % 4}`] as const)
      yield* Effect.forEach(uses, ([lock, key]) =>
        Effect.timeoutOption(lock.withLock(key, Effect.sleep("7 millis"), { ttl: "2 seconds" }), "50 millis"), {
        concurrency: "unbounded"
      })
      yield* Effect.sleep("100 millis")
      const keys = yield* Effect.promise(() =>
        bare.keys("*left/*")
      )
      const others = keys.filter((key) =>
        !key.endsWith(":dlock-fence")
      )
      assert.deepStrictEqual(others.filter((key) => !/dlock-(void|line|waiters)/.test(key)), [], "nothing is held")
      const ttls = yield* Effect.promise(() => Promise.all(keys.map((key) => bare.pttl(key))))
      assert.isTrue(ttls.every((ttl) => ttl > 0 && ttl <= 3_602_000), "everything has an expiry")
    }))
})
