/**
 * Redis servers for tests, a bare client to look at them, and what the conformance suite wants to know of a backend.
 */
import type { LockBackendError } from "@dlock/core"
import type { LockTest } from "@dlock/core/testing"
import { RedisLock } from "@dlock/redis"
import { Context, Effect, Layer } from "effect"
import type { Scope } from "effect"
import type { RedisOptions } from "ioredis"
import { Cluster, Redis } from "ioredis"
import type { HarnessError } from "../harness/HarnessError.ts"
import { proxy } from "../harness/Proxy.ts"
import { redis, redisCluster, redisSentinel } from "../harness/RedisServer.ts"
import type { Server } from "../harness/Server.ts"
import { closing, connect, connectCluster } from "./client.ts"

/** A running server, with a driver of our own to look behind the backend's back. */
export class RedisServer extends Context.Service<RedisServer, { readonly server: Server, readonly bare: Redis }>()(
  "test/redis/RedisServer"
) {
  static readonly layer = Layer.effect(RedisServer, Effect.flatMap(redis(), withDriver))
  /** One that nobody else uses. */
  static readonly layerOwn = Layer.effect(RedisServer, Effect.flatMap(redis({}), withDriver))
}

function withDriver(server: Server) {
  return Effect.map(connect(server.port), (bare) => ({ server, bare }))
}

/** A set-up for the conformance suite. */
export class Target extends Context.Service<Target, {
  readonly bare: Redis | Cluster
  readonly options: RedisLock.Options
  /** A client whose connections all go over roads that can be closed. */
  readonly mortal: Effect.Effect<LockTest.MortalClient, HarnessError | LockBackendError, Scope.Scope>
}>()("test/redis/Target") {}

const commandTimeout = "1 second"

export const capabilities: LockTest.Capabilities<Target> = {
  clock: "live",
  tenure: "lease",
  ttl: "request",
  minTtl: "1 second",
  deadWaiterDelay: "2 seconds",
  commandTimeout,
  fifo: true,
  pushesLoss: false,
  inLine: (key) => Effect.flatMap(Target, ({ bare }) => Effect.promise(() => bare.zcard(`{${key}}:dlock-line`))),
  mortal: Effect.flatMap(Target, ({ mortal }) => mortal),
  revocable: Effect.gen(function*() {
    const { bare, options } = yield* Target
    const client = yield* RedisLock.make(options)
    return { client, revoke: (request) => Effect.promise(() => bare.del(request.key)) }
  })
}

/** One server. */
export const single = Layer.effect(
  Target,
  Effect.gen(function*() {
    const server = yield* redis()
    return {
      bare: yield* connect(server.port),
      options: { addrs: [server.addr] },
      mortal: Effect.gen(function*() {
        const road = yield* proxy(server)
        return { client: yield* RedisLock.make({ addrs: [road.addr], commandTimeout }), cut: road.drop("both") }
      })
    }
  })
)

/** A road to each server, and what the driver calls the map to them. */
const roads = Effect.fnUntraced(function*(servers: ReadonlyArray<Server>) {
  const proxies = yield* Effect.forEach(servers, proxy)
  const natMap = Object.fromEntries(
    servers.map(({ addr, host, port }, i) => [addr, { host, port: proxies[i]?.port ?? port }])
  )
  return { natMap, proxies, cut: Effect.forEach(proxies, (road) => road.drop("both"), { discard: true }) }
})

const endpoints = (servers: ReadonlyArray<{ readonly host: string, readonly port: number }>) =>
  servers.map(({ host, port }) => ({ host, port }))

/** Three masters. */
export const cluster = Layer.effect(
  Target,
  Effect.gen(function*() {
    const { addrs, nodes } = yield* redisCluster()
    return {
      bare: yield* connectCluster(nodes),
      options: { mode: "cluster", addrs } as const,
      mortal: Effect.gen(function*() {
        const { cut, natMap, proxies } = yield* roads(nodes)
        const driver = yield* closing(() => new Cluster(endpoints(proxies), { natMap }))
        return { client: yield* RedisLock.makeClient(driver, { commandTimeout }), cut }
      })
    }
  })
)

/** A master with two replicas, and three sentinels. */
export const sentinel = Layer.effect(
  Target,
  Effect.gen(function*() {
    const { addrs, masterName, sentinels, servers } = yield* redisSentinel()
    const driverOf = (options: Pick<RedisOptions, "sentinels" | "natMap">) =>
      closing(() => new Redis({ name: masterName, ...options }))
    return {
      bare: yield* driverOf({ sentinels: endpoints(sentinels) }),
      options: { mode: "sentinel", addrs, masterName } as const,
      mortal: Effect.gen(function*() {
        const { cut, natMap, proxies } = yield* roads([...sentinels, ...servers])
        const driver = yield* driverOf({ sentinels: endpoints(proxies.slice(0, sentinels.length)), natMap })
        return { client: yield* RedisLock.makeClient(driver, { commandTimeout }), cut }
      })
    }
  })
)
