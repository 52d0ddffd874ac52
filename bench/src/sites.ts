/**
 * The servers, started by the harness of the tests.
 */
import { etcd } from "@dlock/test/harness/EtcdServer"
import type { HarnessError } from "@dlock/test/harness/HarnessError"
import { mariadb } from "@dlock/test/harness/MysqlServer"
import { reserve } from "@dlock/test/harness/Port"
import { postgres } from "@dlock/test/harness/PostgresServer"
import { redis } from "@dlock/test/harness/RedisServer"
import { zooKeeper } from "@dlock/test/harness/ZooKeeperServer"
import { Effect, type Scope } from "effect"
import type { Site } from "./Contender.ts"
import type { Backend } from "./contenders/index.ts"
import { startBroker } from "./workers.ts"

const inMemory = redis({ args: ["--appendonly", "no"] })

const addrsOf: Record<Backend, Effect.Effect<ReadonlyArray<string>, HarnessError, Scope.Scope>> = {
  redis: Effect.map(inMemory, ({ addr }) => [addr]),
  redlock: Effect.map(Effect.all(Array.from({ length: 5 }, () => inMemory)), (nodes) => nodes.map(({ addr }) => addr)),
  etcd: Effect.map(etcd(), ({ addr }) => [addr]),
  mysql: Effect.map(mariadb(), ({ addr }) => [addr]),
  postgres: Effect.map(postgres({ settings: ["fsync=on"] }), ({ addr }) => [addr]),
  zookeeper: Effect.map(zooKeeper({ tickTime: 2000 }), ({ addr }) => [addr])
}

export const start = Effect.fnUntraced(
  function*(backend: Backend): Effect.fn.Return<Site, HarnessError, Scope.Scope> {
    const broker = yield* reserve
    yield* startBroker(broker)
    return { addrs: yield* addrsOf[backend], broker }
  }
)
