/**
 * The backends of ours, and what each has to configure.
 */
import { MemoryLock } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { MysqlLock } from "@dlock/mysql"
import { PostgresLock } from "@dlock/postgres"
import { RedisLock, Redlock } from "@dlock/redis"
import { ZooKeeperLock } from "@dlock/zookeeper"

export const etcd = EtcdLock.declaration
export const redis = RedisLock.declaration
export const redlock = Redlock.declaration
export const mysql = MysqlLock.declaration
export const zookeeper = ZooKeeperLock.declaration
export const postgres = PostgresLock.declaration

export const backends = [MemoryLock, RedisLock, Redlock, EtcdLock, MysqlLock, PostgresLock, ZooKeeperLock]
