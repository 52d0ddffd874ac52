/**
 * The recipes of `docs/`, over real servers.
 */
import { type Lease, withLock } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { PostgresLock } from "@dlock/postgres"
import { RedisLock } from "@dlock/redis"
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Redacted, Ref } from "effect"
import { SqlClient } from "effect/sql"
import { Etcd3 } from "etcd3"
import { Redis } from "ioredis"
import * as fencedEtcd from "../../examples/src/recipes/fencedEtcd.ts"
import * as fencedRedis from "../../examples/src/recipes/fencedRedis.ts"
import * as fencedSql from "../../examples/src/recipes/fencedSql.ts"
import { polite, transfer, withExclusiveLock, withSharedLock } from "../../examples/src/recipes/keys.ts"
import { startWith } from "../beyond/children.ts"
import { bundled } from "../harness/Bundle.ts"
import { etcd } from "../harness/EtcdServer.ts"
import { postgres } from "../harness/PostgresServer.ts"
import { redis } from "../harness/RedisServer.ts"

/** Two leases of one key: an old one that has ended, and a new one. */
const aLease = withLock("reports/today", (lease) => Effect.succeed<Lease>(lease))
const twoLeases = Effect.all([aLease, aLease])

describe("fencing", () => {
  it.live("in PostgreSQL: the statement of an old holder changes nothing", () =>
    Effect.gen(function*() {
      const { url } = yield* postgres()
      const live = Layer.merge(PostgresLock.layer({ url }), PgClient.layer({ url: Redacted.make(url) }))
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE reports (name text PRIMARY KEY, body text, token bigint NOT NULL)`
        yield* sql`INSERT INTO reports VALUES ('today', '', 0)`
        const [old, young] = yield* twoLeases
        yield* fencedSql.save(old, "today", "first")
        yield* fencedSql.save(young, "today", "second")
        yield* fencedSql.save(young, "today", "third")
        const refused = yield* Effect.flip(fencedSql.save(old, "today", "late"))
        assert.strictEqual(refused._tag, "LockLost")
        assert.deepStrictEqual(yield* sql`SELECT body FROM reports`, [{ body: "third" }])
        yield* fencedSql.program
      }).pipe(Effect.provide(live))
    }))

  it.live("in Redis: the script of an old holder changes nothing", () =>
    Effect.gen(function*() {
      const { addr } = yield* redis()
      const [host = "", port] = addr.split(":")
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => new Redis({ host, port: Number(port) })),
        (client) => Effect.sync(() => client.disconnect())
      )
      const [old, young] = yield* Effect.provide(twoLeases, RedisLock.layer({ addrs: [addr] }))
      const written: Array<boolean> = []
      for (const [lease, body] of [[old, "first"], [young, "second"], [young, "third"], [old, "late"]] as const) {
        written.push(yield* fencedRedis.save(client, lease, "report", body))
      }
      assert.deepStrictEqual(written, [true, true, true, false])
      assert.strictEqual(yield* Effect.promise(() => client.hget("report", "body")), "third")
    }))

  it.live("in etcd: the transaction of an old holder changes nothing", () =>
    Effect.gen(function*() {
      const { addr } = yield* etcd()
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => new Etcd3({ hosts: `http://${addr}` })),
        (client) => Effect.sync(() => client.close())
      )
      const [old, young] = yield* Effect.provide(twoLeases, EtcdLock.layer({ endpoints: [addr] }))
      const written: Array<boolean> = []
      for (const [lease, body] of [[old, "first"], [young, "second"], [young, "third"], [old, "late"]] as const) {
        written.push(yield* fencedEtcd.save(client, lease, "report", body))
      }
      assert.deepStrictEqual(written, [true, true, true, false])
      assert.strictEqual(yield* Effect.promise(() => client.get("report/body").string()), "third")
    }))
})

describe("keys and permits", () => {
  it.live("transfers in opposite directions do not wait for each other for ever", () =>
    Effect.gen(function*() {
      const { addr } = yield* redis()
      const done = yield* Ref.make(0)
      const one = Effect.andThen(Effect.yieldNow, Ref.update(done, (count) => count + 1))
      yield* Effect.forEach(
        Array.from({ length: 20 }, (_, i) => i % 2 === 0),
        (forth) => forth ? transfer("1", "2", one) : transfer("2", "1", one),
        { concurrency: "unbounded", discard: true }
      ).pipe(Effect.provide(RedisLock.layer({ addrs: [addr] })))
      assert.strictEqual(yield* Ref.get(done), 20)
    }))

  it.live("five calls at a time; readers together, a writer alone", () =>
    Effect.gen(function*() {
      const { addr } = yield* redis()
      yield* Effect.gen(function*() {
        let now = 0
        let most = 0
        const enter = Effect.sync(() => {
          most = Math.max(most, ++now)
        })
        const leave = Effect.sync(() => now--)
        const call = Effect.ensuring(Effect.andThen(enter, Effect.sleep("20 millis")), leave)
        yield* Effect.forEach(Array.from({ length: 12 }), () => polite(call), { concurrency: "unbounded" })
        assert.isAtMost(most, 5)

        const open = yield* Deferred.make<void>()
        const reading = yield* Deferred.make<void>()
        const log: Array<string> = []
        const write = (line: string) => Effect.sync(() => log.push(line))
        const first = yield* Effect.forkScoped(
          withSharedLock("page", Effect.andThen(Deferred.succeed(reading, undefined), Deferred.await(open)))
        )
        yield* Deferred.await(reading)
        yield* withSharedLock("page", write("another reader"))
        const writer = yield* Effect.forkScoped(withExclusiveLock("page", write("writer")))
        yield* Effect.andThen(write("the reader ends"), Deferred.succeed(open, undefined))
        yield* Fiber.join(first)
        yield* Fiber.join(writer)
        assert.deepStrictEqual(log, ["another reader", "the reader ends", "writer"])
      }).pipe(Effect.provide(RedisLock.layer({ addrs: [addr] })))
    }))

  it.live("a leader that is told to stop hands over", () =>
    Effect.gen(function*() {
      const { addr } = yield* redis()
      const leader = () => startWith({ DLOCK_REDIS_ADDRS: addr }, bundled("leader"))
      const first = yield* leader()
      yield* first.until("leads")
      yield* first.until("sweeps")
      const second = yield* leader()
      yield* first.send("SIGTERM")
      yield* second.until("leads")
      yield* second.until("sweeps")
    }), 120_000)
})
