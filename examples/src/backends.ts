/**
 * The backends that the demo can run on, configured by `DLOCK_*` variables or a YAML file.
 */
import { LockConfig } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { MysqlLock } from "@dlock/mysql"
import { PostgresLock } from "@dlock/postgres"
import { RedisLock } from "@dlock/redis"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { Effect, Layer } from "effect"

/** The servers, by the name of the backend. */
export const servers = {
  redis: RedisLock.layerConfig(),
  etcd: EtcdLock.layerConfig(),
  mysql: MysqlLock.layerConfig(),
  postgres: PostgresLock.layerConfig(),
  zookeeper: ZooKeeperLock.layerConfig()
}

/** The name of a backend that is a server. */
export type ServerName = keyof typeof servers

export const serverNames = ["redis", "etcd", "mysql", "postgres", "zookeeper"] as const satisfies ReadonlyArray<
  ServerName
>

/** Locks on that server. */
export const layer = (name: ServerName) => Layer.provide(servers[name], LockConfig.layer())

const hostAndPort = (backend: string, addr: string): Record<string, string> => {
  const [host = "", port] = addr.split(":")
  return { [`DLOCK_${backend}_HOST`]: host, ...(port !== undefined && { [`DLOCK_${backend}_PORT`]: port }) }
}

/** The variables that say the same as `--backend` and `--addrs`, for the processes of the clerks. */
export const environment = (name: ServerName, addrs: string | undefined): Record<string, string> => {
  const enabled = { [`DLOCK_${name.toUpperCase()}_ENABLED`]: "true" }
  if (addrs === undefined) return enabled
  switch (name) {
    case "redis":
      return { ...enabled, DLOCK_REDIS_ADDRS: addrs }
    case "etcd":
      return { ...enabled, DLOCK_ETCD_ENDPOINTS: addrs }
    case "zookeeper":
      return { ...enabled, DLOCK_ZOOKEEPER_SERVERS: addrs }
    case "postgres":
      return { ...enabled, ...hostAndPort("POSTGRES", addrs) }
    case "mysql":
      return { ...enabled, ...hostAndPort("MYSQL", addrs) }
  }
}

/** The one server that the configuration enables; none when it enables none or several. */
export const configured = Effect.gen(function*() {
  const enabled: Array<ServerName> = []
  for (const name of serverNames) {
    if (yield* LockConfig.enabled(name)) enabled.push(name)
  }
  return enabled.length === 1 ? enabled[0] : undefined
}).pipe(Effect.provide(LockConfig.layer()))
