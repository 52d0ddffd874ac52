/**
 * The access control list of the README is enough for every verb, in every mode.
 */
import type { LockBackend } from "@dlock/core"
import { RedisLock, Redlock } from "@dlock/redis"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option } from "effect"
import { Redis } from "ioredis"
import * as Fs from "node:fs"
import { redis, redisCluster, redisSentinel } from "../harness/RedisServer.ts"
import { closing, connect, newRequest } from "./client.ts"

const readme = Fs.readFileSync(new URL("../../packages/redis/README.md", import.meta.url), "utf8")

/** The rules after `name:` in the README's block of access control lists, with lines that are continued. */
const rulesOf = (name: string): ReadonlyArray<string> => {
  const rules = new RegExp(`^# ${name}\\nACL SETUSER app ([^#]*?)\\n(?=#|\`\`\`)`, "m").exec(readme)?.[1]
  return rules?.split(/\s+/).filter((rule) => rule !== "" && rule !== "\\") ?? assert.fail(`no rules for ${name}`)
}

const allow = (port: number, name: string) =>
  Effect.flatMap(connect(port), (bare) => Effect.promise(() => bare.call("ACL", "SETUSER", "app", ...rulesOf(name))))

/** Every verb, with keys of all forms; one waits, and a key is handed over. */
const useAll = (lock: LockBackend["Service"], other: LockBackend["Service"]) =>
  Effect.gen(function*() {
    for (const key of ["k", "{k}", "a}b"]) {
      const [held, next, third] = [{ ...newRequest(key), spare: 3 }, newRequest(key), newRequest(key)]
      yield* lock.acquire(held)
      assert.isTrue(Option.isNone(yield* other.tryAcquire(third)))
      const waiting = yield* Effect.forkScoped(other.acquire(next))
      yield* Effect.sleep("400 millis")
      yield* lock.renew(held, {})
      yield* lock.renew(held, { spare: 3 })
      yield* lock.inspect(key)
      assert.strictEqual(yield* lock.release(held), "released")
      yield* Effect.timeout(Fiber.join(waiting), "10 seconds")
      assert.isTrue(yield* lock.revoke(key, next.owner))
      yield* other.release(next)
      yield* lock.ping
    }
  })

const login = { username: "app", password: "secret", keyPrefix: "app:" }

describe("the access control list of the README", () => {
  it.live("is enough for one server, and with the prefix of a driver", () =>
    Effect.gen(function*() {
      const server = yield* redis({})
      yield* allow(server.port, "one server")
      const lock = yield* RedisLock.make({ addrs: [server.addr], ...login })
      yield* useAll(lock, yield* RedisLock.make({ addrs: [server.addr], ...login }))
      const drivers = yield* Effect.replicateEffect(
        closing(() => new Redis({ host: server.host, port: server.port, ...login })),
        2
      )
      const [one, other] = yield* Effect.forEach(drivers, (driver) => RedisLock.makeClient(driver))
      yield* useAll(one ?? assert.fail(), other ?? assert.fail())
    }), 60_000)

  it.live("is enough for a master that sentinels watch", () =>
    Effect.gen(function*() {
      const { addrs, masterName, servers } = yield* redisSentinel()
      for (const { port } of servers) yield* allow(port, "one server")
      const options = { mode: "sentinel", addrs, masterName, ...login } as const
      yield* useAll(yield* RedisLock.make(options), yield* RedisLock.make(options))
    }), 60_000)

  it.live("is enough for a cluster", () =>
    Effect.gen(function*() {
      const { addrs, nodes } = yield* redisCluster()
      for (const { port } of nodes) yield* allow(port, "cluster")
      const options = { mode: "cluster", addrs, ...login } as const
      yield* useAll(yield* RedisLock.make(options), yield* RedisLock.make(options))
    }), 60_000)

  it.live("is enough for Redlock", () =>
    Effect.gen(function*() {
      const servers = yield* Effect.replicateEffect(redis({}), 3)
      for (const { port } of servers) yield* allow(port, "Redlock")
      const options = { nodes: servers.map(({ addr }) => addr), ...login }
      yield* useAll(yield* Redlock.make(options), yield* Redlock.make(options))
    }), 60_000)
})
