/**
 * What users get wrong: each is one clear line that names what is wrong, and nothing dies of it.
 */
import type { LockBackend } from "@dlock/core"
import { LockBackendError } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { MysqlLock } from "@dlock/mysql"
import { PostgresLock } from "@dlock/postgres"
import { RedisLock, Redlock } from "@dlock/redis"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { etcd } from "../harness/EtcdServer.ts"
import { mariadb } from "../harness/MysqlServer.ts"
import { postgres } from "../harness/PostgresServer.ts"
import { redis } from "../harness/RedisServer.ts"
import { zooKeeper } from "../harness/ZooKeeperServer.ts"

type Make = (options: object) => Effect.Effect<LockBackend["Service"], LockBackendError, Scope.Scope>

const makes: { readonly [name: string]: Make } = {
  redis: RedisLock.make,
  redlock: Redlock.make,
  etcd: EtcdLock.make,
  mysql: MysqlLock.make,
  postgres: PostgresLock.make,
  zookeeper: ZooKeeperLock.make
}

const addresses: { readonly [name: string]: string } = {
  redis: "addrs",
  redlock: "nodes",
  etcd: "endpoints",
  zookeeper: "servers"
}

const lineOf = (make: Make, options: object) =>
  Effect.scoped(make(options)).pipe(
    Effect.matchCauseEffect({
      onSuccess: () => Effect.sync(() => assert.fail("it is refused")),
      onFailure: (cause) => {
        const [reason] = cause.reasons
        return reason?._tag === "Fail"
          ? Effect.succeed(reason.error)
          : Effect.sync(() => assert.fail(`it is a typed error, not ${cause}`))
      }
    }),
    Effect.map((error) => {
      assert.instanceOf(error, LockBackendError)
      assert.notInclude(error.message, "\n")
      return error
    })
  )

describe("options that are wrong", () => {
  for (const [name, make] of Object.entries(makes)) {
    it.live(`are told by ${name}`, () =>
      Effect.gen(function*() {
        for (const commandTimeout of ["nonsense", 0, -5, Number.NaN, "5"]) {
          const { message } = yield* lineOf(make, { commandTimeout })
          assert.include(message, "commandTimeout: expected a duration")
          assert.include(
            message,
            `got ${JSON.stringify(commandTimeout) === "null" ? "NaN" : JSON.stringify(commandTimeout)}`
          )
        }
        assert.include((yield* lineOf(make, { addr: "x" })).message, "unknown option \"addr\"")
        assert.include((yield* lineOf(make, { password: 5 })).message, "password: expected a text")
        const option = addresses[name]
        if (option === undefined) return
        const { message } = yield* lineOf(make, { [option]: ["127.0.0.1:99999"] })
        assert.include(message, `${option}: the port of "127.0.0.1:99999" is not from 1 to 65535`)
        assert.include((yield* lineOf(make, { [option]: "a b" })).message, "\"a b\" is no address")
      }))
  }
})

describe("another server than was meant", () => {
  const limit = { commandTimeout: "1 second", dialTimeout: "1 second" }

  it.live("is told with its address", () =>
    Effect.gen(function*() {
      const servers = yield* Effect.all(
        { redis: redis(), etcd: etcd(), mysql: mariadb(), postgres: postgres(), zookeeper: zooKeeper() },
        { concurrency: "unbounded" }
      )
      for (const [name, make] of Object.entries(makes)) {
        for (const [other, server] of Object.entries(servers)) {
          if (name === other || (name === "redlock" && other === "redis")) continue
          const option = addresses[name]
          const place = option === undefined ? { host: server.host, port: server.port } : { [option]: server.addr }
          const { dialTimeout: _dial, ...own } = limit
          const error = yield* lineOf(make, { ...place, ...(name === "etcd" ? limit : own) })
          assert.include(error.message, server.addr, `${name} at ${other}`)
        }
      }
    }), 60_000)

  it.live("is told where TLS is spoken to a plain port", () =>
    Effect.gen(function*() {
      const { addr } = yield* redis()
      const { message } = yield* lineOf(RedisLock.make, { addrs: addr, tls: true, commandTimeout: "1 second" })
      assert.include(message, addr)
      assert.include(message, "set tls to false")
    }))
})
