/**
 * What a lock costs the server, counted.
 */
import { Lock, type LockBackend } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import type { Redis } from "ioredis"
import { attempt } from "./client.ts"
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
    while (commands.at(-1)?.[1] !== "over") yield* Effect.sleep("5 millis")
    return commands.slice(0, -1)
  }))

const info = (section: string, field: string) =>
  Effect.flatMap(
    RedisServer,
    ({ bare }) => Effect.promise(async () => Number(new RegExp(`${field}:(\\d+)`).exec(await bare.info(section))?.[1]))
  )

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
      const commands = yield* commandsOf(Effect.repeat(pair, { times: 9 }))
      assert.deepStrictEqual(commands.map(([name]) => name), Array.from({ length: 20 }, () => "evalsha"))
    }))

  it.effect("a lock that was contended once is two round trips again", () =>
    Effect.gen(function*() {
      const [one, other] = [yield* makeLock, yield* makeLock]
      yield* Effect.forEach(
        [one, other],
        (lock) => lock.withLock("cost/again", Effect.sleep("20 millis")),
        { concurrency: "unbounded" }
      )
      const commands = yield* commandsOf(
        Effect.forEach([one, other], (lock) => lock.withLock("cost/again", Effect.void))
      )
      assert.deepStrictEqual(commands.map(([name]) => name), ["evalsha", "evalsha", "evalsha", "evalsha"])
    }))

  for (const waiters of [1, 16, 256]) {
    it.effect(`a hand-over is four commands or less with ${waiters} waiting`, () =>
      Effect.gen(function*() {
        const locks = [yield* makeLock, yield* makeLock]
        let handOvers = 0
        const worker = (lock: Lock["Service"]) =>
          Effect.whileLoop({
            while: () => handOvers < 1000,
            body: () => lock.withLock(`cost/${waiters}`, Effect.sync(() => handOvers++)),
            step: () => {}
          })
        const all = Effect.forEach(
          Array.from({ length: waiters + 1 }, (_, i) => locks[i % 2]),
          (lock) => lock === undefined ? Effect.void : worker(lock),
          { concurrency: "unbounded" }
        )
        const perHandOver = (yield* commandsOf(all)).length / handOvers
        assert.isAtMost(perHandOver, 4, "commands per hand-over, between two processes")
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
            while (handOvers < 1000) {
              const request = attempt(`cost/line ${waiters}`)
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
        const perHandOver = (yield* commandsOf(all)).length / handOvers
        assert.isAtMost(perHandOver, 4, "commands per hand-over")
      }))
  }

  it.effect("renewals that fall due together go out together", () =>
    Effect.gen(function*() {
      const lock = yield* makeLock
      const count = 200
      yield* Effect.forEach(Array.from({ length: count }, (_, i) => `cost/renew ${i}`), (key) =>
        lock.acquire(key, { ttl: "3 seconds" }), { concurrency: "unbounded" })
      yield* Effect.sleep("500 millis")
      const before = yield* info("stats", "total_reads_processed")
      const commands = yield* commandsOf(Effect.sleep("1 second"))
      const reads = (yield* info("stats", "total_reads_processed")) - before
      const renewals = commands.filter(([name]) =>
        name === "evalsha"
      )
      const keys = renewals.map(([, , amount]) => Number(amount))
      assert.strictEqual(keys.reduce((sum, amount) => sum + amount, 0), count, "each was renewed once")
      assert.isAtMost(renewals.length, 12, "many by one command")
      assert.isAtMost(reads, 25, "the server had to read a few times only")
    }))

  it.effect("one connection for messages, however many keys are waited for", () =>
    Effect.gen(function*() {
      const { bare, server } = yield* RedisServer
      const holder = yield* RedisLock.make({ addrs: [server.addr] })
      const backend = yield* RedisLock.make({ addrs: [server.addr] })
      const connections = Effect.promise(async () => String(await bare.client("LIST")).trim().split("\n").length)
      const subscriptions = Effect.promise(() => bare.pubsub("CHANNELS", "dlock-wake/*"))
      const before = [yield* connections, (yield* subscriptions).length] as const
      const keys = Array.from({ length: 100 }, (_, i) => attempt(`cost/keys ${i}`))
      yield* Effect.forEach(keys, (key) => holder.acquire(key))
      yield* Effect.forEach(keys, ({ key }) => Effect.forkScoped(backend.acquire(attempt(key))))
      yield* Effect.sleep("300 millis")
      assert.strictEqual(yield* connections, before[0] + 1, "one more connection")
      assert.strictEqual((yield* subscriptions).length, before[1] + 1, "one more channel")
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
