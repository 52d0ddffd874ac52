/**
 * Every contender, by backend.
 */
import type { Entry } from "../Contender.ts"
import { etcd } from "./etcd.ts"
import { liveMutex } from "./liveMutex.ts"
import { mysql } from "./mysql.ts"
import { redis, redisAcquire, redlock } from "./redis.ts"
import { zookeeper } from "./zookeeper.ts"

export const backends = ["redis", "redlock", "etcd", "mysql", "zookeeper"] as const

export type Backend = typeof backends[number]

export const contenders: Record<Backend, ReadonlyArray<Entry>> = {
  redis: [...redis, liveMutex],
  redlock,
  etcd: [...etcd, liveMutex],
  mysql: [...mysql, liveMutex],
  zookeeper: [...zookeeper, liveMutex]
}

export const find = (backend: Backend, name: string): Entry => {
  const entry = [...contenders[backend], redisAcquire].find((entry) => entry.name === name)
  if (entry === undefined) throw new Error(`no contender ${name} for ${backend}`)
  return entry
}
