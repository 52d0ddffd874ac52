/**
 * One program on whichever backends its configuration enables: memory, Redis, Redlock, etcd, MySQL, PostgreSQL,
 * ZooKeeper, or several of them. Nothing here changes from one to the other.
 *
 *     DLOCK_REDIS_ENABLED=true DLOCK_REDIS_ADDRS=localhost:6379 node examples/src/configured.ts
 *     DLOCK_CONFIG=locks.yaml DLOCK_TIMEOUT=5s node examples/src/configured.ts
 */
import { LockConfig, LockRegistry, MemoryLock, withLock } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { MysqlLock } from "@dlock/mysql"
import { PostgresLock } from "@dlock/postgres"
import { RedisLock, Redlock } from "@dlock/redis"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"

const report = withLock(
  "reports/nightly",
  (lease) => Console.log(`${lease.backend}: the report is written once, with token ${lease.fencingToken}`)
)

const program = Effect.gen(function*() {
  const names = yield* LockRegistry.names
  if (names.length === 0) yield* Console.log("No backend is enabled: set DLOCK_REDIS_ENABLED=true, or another one.")
  yield* Effect.forEach(names, (name) => report.pipe(LockRegistry.withBackend(name)), { discard: true })
})

const backends = [MemoryLock, RedisLock, Redlock, EtcdLock, MysqlLock, PostgresLock, ZooKeeperLock]

const live = LockRegistry.layerConfig(backends).pipe(
  Layer.provide(LockConfig.layer({ backends })),
  Layer.provide(NodeServices.layer)
)

NodeRuntime.runMain(Effect.provide(program, live))
