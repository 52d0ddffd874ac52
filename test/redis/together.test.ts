/**
 * What is asked for in one turn goes out as one command, and is answered as if it had not.
 */
import type { LockRequest } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { least, millis, newRequest, until } from "./client.ts"
import { RedisServer } from "./support.ts"

const setup = Effect.gen(function*() {
  const { bare, server } = yield* RedisServer
  return { bare, lock: yield* RedisLock.make({ addrs: [server.addr] }) }
})

const together = <A, E>(requests: ReadonlyArray<LockRequest>, verb: (request: LockRequest) => Effect.Effect<A, E>) =>
  Effect.forEach(requests, (request) => Effect.exit(verb(request)), { concurrency: "unbounded" })

const attempts = (count: number, prefix: string) =>
  Array.from({ length: count }, (_, i) => newRequest(`${prefix} ${i}`))

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "1 minute" })("what is asked for together", (it) => {
  it.effect("has tokens that grow over all of it, also when the clock was set back", () =>
    Effect.gen(function*() {
      const { bare, lock } = yield* setup
      const round = Effect.gen(function*() {
        const requests = attempts(250, "together/tokens")
        const exits = yield* together(requests, lock.acquire)
        yield* together(requests, lock.release)
        return exits.map((exit) => Exit.isSuccess(exit) ? exit.value.tokens.first : -1n)
      })
      const first = yield* round
      const last = Number(yield* Effect.promise(() => bare.get(":dlock-fence")))
      yield* Effect.promise(() => bare.set(":dlock-fence", `${last + 3_600_000_000}`))
      const tokens = [...first, ...(yield* round), ...(yield* round)]
      yield* Effect.promise(() => bare.del(":dlock-fence"))
      assert.isTrue(first.every((token) => token > 0n), "every key is granted")
      assert.isTrue(tokens.every((token, i) => i === 0 || token > (tokens[i - 1] ?? 0n)), "each is greater")
    }))

  it.effect("does not suffer from a key that holds something else", () =>
    Effect.gen(function*() {
      const { bare, lock } = yield* setup
      yield* Effect.promise(() => bare.rpush("together/type 1", "a list"))
      const requests = attempts(3, "together/type")
      const exits = yield* together(requests, lock.tryAcquire)
      assert.deepStrictEqual(exits.map((exit) => Exit.isSuccess(exit)), [true, false, true])
      for (const { key, owner } of requests.filter((_, i) => i !== 1)) {
        assert.strictEqual(yield* Effect.promise(() => bare.get(key)), owner)
      }
      yield* together(requests, lock.release)
      assert.strictEqual(yield* Effect.promise(() => bare.exists("together/type 0", "together/type 2")), 0)
    }))

  it.effect("a holder and the next in line that leave at once do not hold up the one behind", () =>
    Effect.gen(function*() {
      const { bare, lock } = yield* setup
      const leave = Effect.fnUntraced(function*(n: number) {
        const key = `together/leave ${n}`
        const [holder, next, last] = [newRequest(key), newRequest(key), newRequest(key)]
        yield* lock.acquire(holder)
        const inLine = (count: number) =>
          until(Effect.promise(async () => (await bare.zcard(`{${key}}:dlock-line`)) === count))
        const leaving = yield* Effect.forkScoped(lock.acquire(next), { startImmediately: true })
        yield* inLine(1)
        const waiting = yield* Effect.forkScoped(lock.acquire(last), { startImmediately: true })
        yield* inLine(2)
        yield* Effect.forkScoped(Fiber.interrupt(leaving), { startImmediately: true })
        yield* together([holder, next], lock.release)
        const [, time] = yield* millis(Fiber.join(waiting))
        yield* lock.release(last)
        return time
      })
      assert.isBelow(yield* least(300, leave), 300, "the key goes on at once")
    }))
})
