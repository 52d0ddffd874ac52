/**
 * The layers of a worker, by what it was told.
 */
import type { Lock, LockBackendError } from "@dlock/core"
import { MemoryLock } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { MysqlLock } from "@dlock/mysql"
import { PostgresLock } from "@dlock/postgres"
import { RedisLock, Redlock } from "@dlock/redis"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { Effect, Layer, Redacted } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { Cluster, Redis } from "ioredis"
import * as Ledger from "./ledger.ts"
import type { Connection, Roads } from "./Spec.ts"

const commandTimeout = "1 second"

const endpoint = (addr: string) => {
  const [host = "", port] = addr.split(":")
  return { host, port: Number(port) }
}

/** A driver of our own, for only it takes a map of addresses to roads. */
const overRoads = <D extends Redis | Cluster>(
  roads: Roads,
  open: (natMap: Record<string, { readonly host: string, readonly port: number }>) => D
): Layer.Layer<Lock, LockBackendError> =>
  Layer.unwrap(Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const driver = open(Object.fromEntries(Object.entries(roads).map(([addr, road]) => [addr, endpoint(road)])))
        driver.on("error", () => {})
        return driver
      }),
      (driver) => Effect.sync(() => driver.disconnect())
    ),
    (driver) => RedisLock.layerClient(driver, { commandTimeout })
  ))

const memory = Effect.runSync(MemoryLock.make)

/** Locks on what the connection leads to, with the ledger if there is one. */
export const layer = (connection: Connection): Layer.Layer<Lock, LockBackendError | SqlError> => {
  switch (connection.kind) {
    case "memory":
      return MemoryLock.layerShared(memory)
    case "redis":
      return RedisLock.layer({ addrs: [connection.addr], commandTimeout })
    case "redis-cluster":
      return overRoads(connection.roads, (natMap) =>
        new Cluster(connection.addrs.map(endpoint), {
          natMap,
          clusterRetryStrategy: () => 100,
          redisOptions: { connectTimeout: 1000 }
        }))
    case "redis-sentinel":
      return overRoads(connection.roads, (natMap) =>
        new Redis({
          sentinels: connection.addrs.map(endpoint),
          name: connection.masterName,
          natMap,
          connectTimeout: 1000,
          retryStrategy: () => 100,
          sentinelRetryStrategy: () => 100
        }))
    case "redlock":
      return Redlock.layer({ nodes: connection.nodes, commandTimeout })
    case "etcd":
      return EtcdLock.layer({ endpoints: connection.endpoints, commandTimeout })
    case "mysql": {
      const { host, port } = endpoint(connection.addr)
      return MysqlLock.layer({
        host,
        port,
        username: connection.username,
        password: Redacted.make(connection.password),
        database: connection.database,
        commandTimeout
      })
    }
    case "postgres": {
      const { ledger, url } = connection
      const locks = PostgresLock.layer({ url, commandTimeout })
      return ledger === undefined ? locks : Layer.provideMerge(Ledger.layer(ledger), locks)
    }
    case "zookeeper":
      return ZooKeeperLock.layer({
        servers: connection.servers,
        sessionTimeout: connection.sessionTimeout,
        commandTimeout
      })
  }
}
