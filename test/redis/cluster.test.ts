/**
 * What is particular to Redis Cluster.
 */
import { Lock, LockLost } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Option } from "effect"
import type { Redis } from "ioredis"
import { available } from "../harness/Program.ts"
import { redis, redisCluster } from "../harness/RedisServer.ts"
import { connect, connectCluster, least, millis, newRequest, persist, until } from "./client.ts"

const awkward = ["plain", "{tag}rest", "a{b", "a}b", "{}x", "}{", "{{x}}", "}", "ä{ö}ü", "x".repeat(500)]

const lockOn = (addrs: ReadonlyArray<string>) =>
  Effect.map(Layer.build(RedisLock.layer({ mode: "cluster", addrs })), Context.get(Lock))

const slotOf = (port: number, key: string) =>
  Effect.flatMap(connect(port), (bare) => Effect.promise(() => bare.cluster("KEYSLOT", key)))

/** One end of a move. */
interface End {
  readonly bare: Redis
  readonly id: string
  readonly port: number
}

const classic = (source: End, target: End, slot: number) =>
  Effect.gen(function*() {
    yield* Effect.promise(async () => {
      await target.bare.cluster("SETSLOT", slot, "IMPORTING", source.id)
      await source.bare.cluster("SETSLOT", slot, "MIGRATING", target.id)
    })
    // One key after the other, slowly: for longer than the ttl the slot is half here, half there.
    for (;;) {
      const [first] = yield* Effect.promise(() => source.bare.cluster("GETKEYSINSLOT", slot, 1))
      if (first === undefined) break
      yield* Effect.promise(() => source.bare.migrate("127.0.0.1", target.port, String(first), 0, 5000))
      yield* Effect.sleep("700 millis")
    }
    yield* Effect.promise(async () => {
      await target.bare.cluster("SETSLOT", slot, "NODE", target.id)
      await source.bare.cluster("SETSLOT", slot, "NODE", target.id)
    })
  })

const nowServes = ({ bare, id }: End, slot: number) =>
  until(Effect.promise(async () => {
    const slots: unknown = await bare.cluster("SLOTS")
    return Array.isArray(slots) &&
      slots.some(([from, to, master]) => from <= slot && slot <= to && master?.[2] === id)
  }))

/** How a slot is moved. */
const moves = {
  "SETSLOT and MIGRATE": { kind: "redis", move: classic },
  "SETSLOT and MIGRATE, Redis 8": { kind: "redis-8", move: classic },
  "SETSLOT and MIGRATE, Valkey 9": { kind: "valkey-9", move: classic },
  "CLUSTER MIGRATION": {
    kind: "redis-8",
    move: (_: End, target: End, slot: number) =>
      Effect.andThen(
        Effect.promise(() => target.bare.call("CLUSTER", "MIGRATION", "IMPORT", slot, slot)),
        nowServes(target, slot)
      )
  },
  "CLUSTER MIGRATESLOTS": {
    kind: "valkey-9",
    move: (source: End, target: End, slot: number) =>
      Effect.andThen(
        Effect.promise(() => source.bare.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)),
        nowServes(target, slot)
      )
  }
} as const

describe("redis cluster", () => {
  it.live("keeps everything of a lock in one slot, whatever the key", () =>
    Effect.gen(function*() {
      const { addrs } = yield* redisCluster()
      const options = { mode: "cluster", addrs } as const
      const one = yield* RedisLock.make(options)
      const other = yield* RedisLock.make({ ...options, keyPrefix: "" })
      for (const key of awkward) {
        const [held, next] = [newRequest(key), newRequest(key)]
        yield* one.acquire(held)
        const waiting = yield* Effect.forkScoped(other.acquire(next))
        yield* Effect.sleep("50 millis")
        assert.strictEqual(yield* one.release(held), "released", key)
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* other.release(next), "released", key)
      }
    }))

  it.live("wakes a waiter on another node than the key's, through any node", () =>
    Effect.gen(function*() {
      const { addrs } = yield* redisCluster()
      const locks = yield* Effect.forEach(Array.from({ length: 4 }), () => RedisLock.make({ mode: "cluster", addrs }))
      const wake = Effect.fnUntraced(function*(n: number) {
        const [one, other] = [locks[n % 4] ?? assert.fail(), locks[(n + 1) % 4] ?? assert.fail()]
        const [held, next] = [newRequest(`wake/${n}`), newRequest(`wake/${n}`)]
        yield* one.acquire(held)
        const waiting = yield* Effect.forkScoped(other.acquire(next))
        yield* Effect.sleep("150 millis")
        yield* one.release(held)
        const [, time] = yield* millis(Fiber.join(waiting))
        yield* other.release(next)
        return time
      })
      for (const n of [0, 1, 2, 3, 4, 5]) {
        assert.isBelow(yield* least(150, () => wake(n)), 150, "a message came; a look would have been later")
      }
    }))

  it.live("a wrong mode is a clear error", () =>
    Effect.gen(function*() {
      const { addrs } = yield* redisCluster()
      const server = yield* redis()
      const asSingle = yield* Effect.flip(RedisLock.make({ addrs: addrs.slice(0, 1) }))
      assert.strictEqual(asSingle.reason, "Unsupported")
      assert.include(asSingle.message, `"cluster"`)
      const asCluster = yield* Effect.flip(RedisLock.make({ mode: "cluster", addrs: [server.addr] }))
      assert.strictEqual(asCluster.reason, "Unsupported", asCluster.message)
    }))

  for (const [name, { kind, move }] of Object.entries(moves)) {
    it.live.skipIf(!available(kind))(
      `a slot that moves takes its locks along, held and waited for: ${name}`,
      () =>
        Effect.gen(function*() {
          const { addrs, nodes } = yield* redisCluster({ kind })
          const bare = yield* connectCluster(nodes)
          const lock = yield* lockOn(addrs)
          const other = yield* lockOn(addrs)
          const key = "moving"
          const slot = yield* slotOf(nodes[0]?.port ?? 0, key)
          const drivers = yield* Effect.forEach(nodes, ({ port }) => connect(port))
          const ids = yield* Effect.promise(() => Promise.all(drivers.map((driver) => driver.cluster("MYID"))))
          const from = slot < 5461 ? 0 : slot < 10922 ? 1 : 2
          const end = (i: number): End => ({
            bare: drivers[i] ?? assert.fail(),
            id: String(ids[i]),
            port: nodes[i]?.port ?? assert.fail()
          })

          const held = yield* Deferred.make<void>()
          const over = yield* Deferred.make<void>()
          const tokens: Array<bigint> = []
          const holding = yield* Effect.forkScoped(lock.withLock(
            key,
            ({ fencingToken }) => {
              tokens.push(fencingToken)
              return Effect.andThen(Deferred.succeed(held, undefined), Deferred.await(over))
            },
            { ttl: "4 seconds" }
          ))
          yield* Deferred.await(held)
          const waiting = yield* Effect.forkScoped(other.withLock(key, ({ fencingToken }) =>
            Effect.sync(() => {
              tokens.push(fencingToken)
            })))
          yield* until(Effect.promise(async () => (await bare.zcard(`{${key}}:dlock-line`)) === 1))
          yield* move(end(from), end((from + 1) % 3), slot)
          // The hold outlives its ttl where it is now.
          yield* Effect.sleep("5 seconds")
          assert.isUndefined(holding.pollUnsafe(), "the hold is renewed")
          assert.isUndefined(waiting.pollUnsafe(), "the key is held")
          yield* Deferred.succeed(over, undefined)
          yield* Fiber.join(holding)
          yield* Fiber.join(waiting)
          const [first = 0n, second = 0n] = tokens
          assert.isTrue(second > first, "tokens grow where the slot is now")
          assert.strictEqual(yield* Effect.promise(() => bare.exists(key)), 0)
        })
    )
  }

  it.live(
    "a master that dies: what is lost is reported as lost, tokens grow, and the locks work again",
    () =>
      Effect.gen(function*() {
        const { addrs, nodes } = yield* redisCluster({ replicas: 1 })
        const lock = yield* lockOn(addrs)
        const key = "failover"
        const slot = yield* slotOf(nodes[0]?.port ?? 0, key)
        const master = nodes[slot < 5461 ? 0 : slot < 10922 ? 1 : 2] ?? assert.fail()
        const held = yield* Deferred.make<bigint>()
        const holding = yield* Effect.forkScoped(Effect.exit(lock.withLock(
          key,
          (lease) => Effect.andThen(Deferred.succeed(held, lease.fencingToken), Effect.never),
          { ttl: "3 seconds" }
        )))
        const token = yield* Deferred.await(held)
        yield* master.kill
        // The lease may live on in the replica, or not have reached it; with ttl and time-out of a node near each other it
        // may also run out. In each case it ends by its time at the latest.
        const ended = yield* Effect.timeoutOption(Fiber.join(holding), "6 seconds")
        if (Option.isSome(ended)) {
          const error = Exit.isFailure(ended.value)
            ? Option.getOrUndefined(Cause.findErrorOption(ended.value.cause))
            : undefined
          assert.instanceOf(error, LockLost)
        } else yield* Fiber.interrupt(holding)
        const next = yield* lock.withLock(key, (lease) => Effect.succeed(lease.fencingToken)).pipe(
          Effect.retry({ times: 20 })
        )
        assert.isTrue(next > token, "tokens grow over a fail-over")
        yield* master.start
      }),
    60_000
  )

  it.live("a node that is away fails its keys only, in time, and comes back by itself", () =>
    Effect.gen(function*() {
      const { addrs, nodes } = yield* redisCluster()
      const backend = yield* persist(RedisLock.make({ mode: "cluster", addrs, commandTimeout: "1 second" }))
      const [first] = nodes
      const keys = Array.from({ length: 30 }, (_, i) => `away/${i}`)
      yield* (first ?? assert.fail()).kill
      const [results, time] = yield* millis(Effect.forEach(keys, (key) => {
        const request = newRequest(key)
        return Effect.flatMap(
          Effect.exit(backend.tryAcquire(request)),
          (exit) => Effect.as(Effect.exit(backend.release(request)), Exit.isSuccess(exit))
        )
      }, { concurrency: "unbounded" }))
      assert.isBelow(time, 12_000, "within the command timeout, twice, on a busy machine")
      assert.isTrue(results.includes(false), "some keys were on the dead node")
      yield* (first ?? assert.fail()).start
      yield* Effect.forEach(
        keys,
        (key) => Effect.retry(Effect.suspend(() => backend.tryAcquire(newRequest(key))), { times: 20 }),
        { concurrency: "unbounded" }
      )
    }), 60_000)
})
