/**
 * Redis servers for tests, a bare client to look at them, and what the conformance suite wants to know of a backend.
 */
import { LockBackend, type LockBackendError } from "@dlock/core"
import type { LockTest } from "@dlock/core/testing"
import { RedisLock } from "@dlock/redis"
import { Context, Effect, Layer } from "effect"
import type { Scope } from "effect"
import type { RedisOptions } from "ioredis"
import { Cluster, Redis } from "ioredis"
import type { HarnessError } from "../harness/HarnessError.ts"
import { proxy } from "../harness/Proxy.ts"
import type { Kind } from "../harness/RedisServer.ts"
import { redis, redisCluster, redisSentinel } from "../harness/RedisServer.ts"
import type { Server } from "../harness/Server.ts"
import { closing, connect, connectCluster } from "./client.ts"
import { relay } from "./relay.ts"

/** A running server, with a driver of our own to look behind the backend's back. */
export class RedisServer extends Context.Service<RedisServer, { readonly server: Server, readonly bare: Redis }>()(
  "test/redis/RedisServer"
) {
  static readonly layer = (kind?: Kind) =>
    Layer.effect(RedisServer, Effect.flatMap(redis(kind && { kind }), withDriver))
  /** One that no other test uses. */
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

// Of clients that lose their servers, and so wait that long.
const commandTimeout = "5 seconds"

/** Of clients whose servers are there: a busy machine answers late. */
const patient = { commandTimeout: "30 seconds" } as const

export const capabilities: LockTest.Capabilities<Target> = {
  clock: "live",
  freedBy: "ttl",
  ttl: "request",
  minTtl: "2 seconds",
  deadWaiterDelay: "2 seconds",
  commandTimeout,
  fifo: true,
  pushesLoss: false,
  tellsWanted: true,
  reserves: true,
  renewsTokens: true,
  inspects: { owner: true, token: false, remaining: true, waiting: "owners" },
  revokes: true,
  refuses: (key) => key.includes(":dlock-"),
  inLine: (key) => Effect.flatMap(Target, ({ bare }) => Effect.promise(() => bare.zcard(`{${key}}:dlock-line`))),
  mortal: Effect.flatMap(Target, ({ mortal }) => mortal),
  revocable: Effect.gen(function*() {
    const { bare, options } = yield* Target
    const client = yield* RedisLock.make({ ...options, ...patient })
    return { client, revoke: (request) => Effect.promise(() => bare.del(request.key)) }
  })
}

/** What the suite tests. */
export const backend = Layer.effect(
  LockBackend,
  Effect.flatMap(Target, ({ options }) => RedisLock.make({ ...options, ...patient }))
)

const addressOf = Effect.map(Target, ({ bare }) => {
  const { host = "", port = 0 } = bare instanceof Redis ? bare.options : {}
  return { host, port }
})

/** A client of the target whose connections go over a road. */
const overRelay = Effect.gen(function*() {
  const address = yield* addressOf
  const road = yield* relay(address)
  return { address, road, client: yield* RedisLock.make({ addrs: [road.addr], commandTimeout }) }
})

/** What can be brought about on one server. */
export const singleCapabilities = (kind?: Kind): LockTest.Capabilities<Target> => ({
  ...capabilities,
  late: Effect.map(overRelay, ({ client, road }) => ({
    client,
    holdBack: road.freeze,
    breakOff: road.breakOff,
    deliver: road.thaw
  })),
  counted: Effect.map(overRelay, ({ client, road }) => ({ client, requests: road.commands })),
  swapped: Effect.gen(function*() {
    const other = yield* redis({ kind })
    const { address, client, road } = yield* overRelay
    return { client, begin: road.to(other), end: road.to(address) }
  }),
  busy: Effect.gen(function*() {
    const server = yield* redis({ kind })
    const bare = yield* connect(server.port)
    const client = yield* RedisLock.make({ addrs: [server.addr], commandTimeout })
    const follow = (...master: readonly [string, string]) => Effect.promise(() => bare.call("REPLICAOF", ...master))
    // A replica whose master is away keeps its data.
    return { client, begin: Effect.asVoid(follow("127.0.0.1", "1")), end: Effect.asVoid(follow("NO", "ONE")) }
  }),
  full: Effect.gen(function*() {
    const { bare } = yield* Target
    const client = yield* RedisLock.make({ addrs: [`127.0.0.1:${(yield* addressOf).port}`], commandTimeout })
    // Open connections stay; one for messages cannot be opened any more.
    const limit = (most: number) => Effect.asVoid(Effect.promise(() => bare.config("SET", "maxclients", most)))
    return { client, begin: limit(1), end: limit(10_000) }
  })
})

/** What can be brought about in a cluster. */
export const clusterCapabilities = (kind?: Kind): LockTest.Capabilities<Target> => ({
  ...capabilities,
  busy: Effect.gen(function*() {
    const { addrs, nodes } = yield* redisCluster({ kind })
    const drivers = yield* Effect.forEach(nodes, ({ port }) => connect(port))
    const client = yield* RedisLock.make({ mode: "cluster", addrs, commandTimeout })
    const [owner] = drivers
    return {
      client,
      // A cluster with a slot that no node has is down.
      begin: Effect.forEach(drivers, (driver) => Effect.promise(() => driver.cluster("DELSLOTS", 0)), {
        discard: true
      }),
      end: Effect.asVoid(Effect.promise(async () => owner?.cluster("ADDSLOTS", 0)))
    }
  })
})

/** One server; of no kind, also one that the environment names. */
export const single = (kind?: Kind) =>
  Layer.effect(
    Target,
    Effect.gen(function*() {
      const server = yield* redis(kind && { kind })
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
export const cluster = (kind?: Kind) =>
  Layer.effect(
    Target,
    Effect.gen(function*() {
      const { addrs, nodes } = yield* redisCluster({ kind })
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
