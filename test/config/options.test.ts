/**
 * What can be configured is what the backends have; the type check says so.
 */
import type { EtcdLock } from "@dlock/etcd"
import type { MysqlLock } from "@dlock/mysql"
import type { PostgresLock } from "@dlock/postgres"
import type { RedisLock, Redlock } from "@dlock/redis"
import type { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, it } from "@effect/vitest"
import type { Config } from "effect"
import type { etcd, mysql, postgres, redis, redlock, zookeeper } from "./backends.ts"

/** Options that the declaration has and the backend's type does not: there must be none. */
type Unread<D extends { readonly config: Config.Config<unknown> }, Options> = Exclude<
  keyof Config.Success<D["config"]>,
  keyof Options
>

/** Options that the backend's type has and the declaration does not: there must be none. */
type Undeclared<D extends { readonly config: Config.Config<unknown> }, Options> = Exclude<
  keyof Options,
  keyof Config.Success<D["config"]>
>

const none = <_Names extends never>() => true

it("every option is declared, and no option is declared in vain", () => {
  assert.isTrue(none<Unread<typeof etcd, EtcdLock.Options> | Undeclared<typeof etcd, EtcdLock.Options>>(), "etcd")
  assert.isTrue(none<Unread<typeof mysql, MysqlLock.Options> | Undeclared<typeof mysql, MysqlLock.Options>>(), "mysql")
  assert.isTrue(
    none<Unread<typeof postgres, PostgresLock.Options> | Undeclared<typeof postgres, PostgresLock.Options>>(),
    "postgres"
  )
  assert.isTrue(none<Unread<typeof redis, RedisLock.Options> | Undeclared<typeof redis, RedisLock.Options>>(), "redis")
  assert.isTrue(
    none<Unread<typeof redlock, Redlock.Options> | Undeclared<typeof redlock, Redlock.Options>>(),
    "redlock"
  )
  assert.isTrue(
    none<Unread<typeof zookeeper, ZooKeeperLock.Options> | Undeclared<typeof zookeeper, ZooKeeperLock.Options>>(),
    "zookeeper"
  )
})
