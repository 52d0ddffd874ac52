/**
 * What can be configured is what the backends have; the type check says so.
 */
import type { LockConfig } from "@dlock/core"
import type { EtcdLock } from "@dlock/etcd"
import type { MysqlLock } from "@dlock/mysql"
import type { RedisLock, Redlock } from "@dlock/redis"
import type { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, it } from "@effect/vitest"
import type { Config } from "effect"

/** Options that the configuration has and the backend does not read: there must be none. */
type Unread<C extends Config.Config<unknown>, Options> = Exclude<keyof Config.Success<C>, keyof Options>

const none = <_Names extends never>() => true

it("no option is read from the configuration in vain", () => {
  assert.isTrue(none<Unread<typeof LockConfig.etcd, EtcdLock.Options>>(), "etcd")
  assert.isTrue(none<Unread<typeof LockConfig.mysql, MysqlLock.Options>>(), "mysql")
  assert.isTrue(none<Unread<typeof LockConfig.redis, RedisLock.Options>>(), "redis")
  assert.isTrue(none<Unread<typeof LockConfig.redlock, Redlock.Options>>(), "redlock")
  assert.isTrue(none<Unread<typeof LockConfig.zookeeper, ZooKeeperLock.Options>>(), "zookeeper")
})
