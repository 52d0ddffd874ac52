/**
 * Every contender, by backend.
 */
import { dlock, type Entry, type LayerOf, type Variant } from "../Contender.ts"
import { etcd, etcdLayer } from "./etcd.ts"
import { liveMutex } from "./liveMutex.ts"
import { mysql, mysqlLayer } from "./mysql.ts"
import { postgres, postgresLayer } from "./postgres.ts"
import { redis, redisLayer, redlock, redlockLayer } from "./redis.ts"
import { zookeeper, zookeeperLayer } from "./zookeeper.ts"

export const backends = ["redis", "redlock", "etcd", "mysql", "postgres", "zookeeper"] as const

export type Backend = typeof backends[number]

export const contenders: Record<Backend, ReadonlyArray<Entry>> = {
  redis: [...redis, liveMutex],
  redlock,
  etcd: [...etcd, liveMutex],
  mysql: [...mysql, liveMutex],
  postgres: [...postgres, liveMutex],
  zookeeper: [...zookeeper, liveMutex]
}

export const layers: Record<Backend, LayerOf> = {
  redis: redisLayer,
  redlock: redlockLayer,
  etcd: etcdLayer,
  mysql: mysqlLayer,
  postgres: postgresLayer,
  zookeeper: zookeeperLayer
}

const named = { acquire: "dlock (acquire)", linger: "dlock, linger", turn: "dlock, turn 0" } as const

const options: Record<keyof typeof named, Variant> = {
  acquire: { by: "acquire" },
  linger: { defaults: { linger: "10 seconds" } },
  turn: { defaults: { turn: 0 } }
}

/** dlock in another way: holding by `acquire`, with `linger`, or without turns, so that each section is a grant of its own. */
export const variant = (backend: Backend, which: keyof typeof named): Entry => ({
  name: named[which],
  kind: "dlock",
  make: (site) => dlock(layers[backend](site), options[which])
})

export const find = (backend: Backend, name: string): Entry => {
  const entry = [
    ...contenders[backend],
    ...(["acquire", "linger", "turn"] as const).map((which) => variant(backend, which))
  ].find((entry) => entry.name === name)
  if (entry === undefined) throw new Error(`no contender ${name} for ${backend}`)
  return entry
}
