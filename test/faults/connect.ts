/**
 * The layers of a worker, by what it was told.
 */
import type { Lock, LockBackendError } from "@dlock/core"
import { MemoryLock } from "@dlock/core"
import type * as DlockRedis from "@dlock/redis"
import { Effect, Layer, Redacted } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Cluster, Redis } from "ioredis"
import type { Connection, Roads } from "./Spec.ts"

const commandTimeout = "1 second"

const endpoint = (addr: string) => {
  const [host = "", port] = addr.split(":")
  return { host, port: Number(port) }
}

/** Each process loads one driver, which is much of the time in which it starts. */
const loaded = <M, A, E>(
  load: () => Promise<M>,
  layer: (module: M) => Layer.Layer<A, E>
): Layer.Layer<A, E> => Layer.unwrap(Effect.map(Effect.promise(load), layer))

const redis = <A, E>(layer: (module: typeof DlockRedis) => Layer.Layer<A, E>) =>
  loaded(() => import("@dlock/redis"), layer)

/** A driver of our own, for only it takes a map of addresses to roads. */
const overRoads = <D extends Redis | Cluster>(
  roads: Roads,
  open: (
    driver: { readonly Redis: typeof Redis, readonly Cluster: typeof Cluster },
    natMap: Record<string, { readonly host: string, readonly port: number }>
  ) => D
): Layer.Layer<Lock, LockBackendError> =>
  loaded(
    () => Promise.all([import("@dlock/redis"), import("ioredis")]),
    ([{ RedisLock }, ioredis]) =>
      Layer.unwrap(Effect.map(
        Effect.acquireRelease(
          Effect.sync(() => {
            const natMap = Object.fromEntries(Object.entries(roads).map(([addr, road]) => [addr, endpoint(road)]))
            const driver = open(ioredis, natMap)
            driver.on("error", () => {})
            return driver
          }),
          (driver) => Effect.sync(() => driver.disconnect())
        ),
        (driver) => RedisLock.layerClient(driver, { commandTimeout })
      ))
  )

const memory = Effect.runSync(MemoryLock.make)

/** Locks on what the connection leads to, with the ledger if there is one. */
export const layer = (connection: Connection): Layer.Layer<Lock, LockBackendError | SqlError> => {
  switch (connection.kind) {
    case "memory":
      return MemoryLock.layerShared(memory)
    case "redis":
      return redis(({ RedisLock }) => RedisLock.layer({ addrs: [connection.addr], commandTimeout }))
    case "redis-cluster":
      return overRoads(connection.roads, ({ Cluster }, natMap) =>
        new Cluster(connection.addrs.map(endpoint), {
          natMap,
          clusterRetryStrategy: () => 100,
          redisOptions: { connectTimeout: 1000 }
        }))
    case "redis-sentinel":
      return overRoads(connection.roads, ({ Redis }, natMap) =>
        new Redis({
          sentinels: connection.addrs.map(endpoint),
          name: connection.masterName,
          natMap,
          connectTimeout: 1000,
          retryStrategy: () => 100,
          sentinelRetryStrategy: () => 100
        }))
    case "redlock":
      return redis(({ Redlock }) => Redlock.layer({ nodes: connection.nodes, commandTimeout }))
    case "etcd":
      return loaded(
        () => import("@dlock/etcd"),
        ({ EtcdLock }) => EtcdLock.layer({ endpoints: connection.endpoints, commandTimeout })
      )
    case "mysql": {
      const { database, password, username } = connection
      return loaded(() => import("@dlock/mysql"), ({ MysqlLock }) =>
        MysqlLock.layer({
          ...endpoint(connection.addr),
          username,
          password: Redacted.make(password),
          database,
          commandTimeout
        }))
    }
    case "postgres": {
      const { ledger, url } = connection
      return loaded(
        () => Promise.all([import("@dlock/postgres"), import("./postgresLedger.ts")]),
        ([{ PostgresLock }, Ledger]) => {
          const locks = PostgresLock.layer({ url, commandTimeout })
          return ledger === undefined ? locks : Layer.provideMerge(Ledger.layer(ledger), locks)
        }
      )
    }
    case "zookeeper":
      return loaded(() => import("@dlock/zookeeper"), ({ ZooKeeperLock }) =>
        ZooKeeperLock.layer({
          servers: connection.servers,
          sessionTimeout: connection.sessionTimeout,
          commandTimeout
        }))
  }
}
