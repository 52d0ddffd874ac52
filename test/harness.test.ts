import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { etcd, etcdCluster } from "./harness/EtcdServer.ts"
import { mariadb } from "./harness/MysqlServer.ts"
import { redis } from "./harness/RedisServer.ts"
import { zooKeeper, zooKeeperEnsemble } from "./harness/ZooKeeperServer.ts"

describe("servers", () => {
  it.live("start and start again", () =>
    Effect.gen(function*() {
      for (const make of [redis, etcd, mariadb, zooKeeper]) {
        const server = yield* make()
        yield* server.kill
        yield* server.start
      }
      yield* etcdCluster()
      yield* zooKeeperEnsemble()
    }))
})
