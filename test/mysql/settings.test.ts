/**
 * Settings of the server, of the caller's pool, and tables that others lock.
 */
import { MysqlLock } from "@dlock/mysql"
import { assert, describe, vi } from "@effect/vitest"
import { Deferred, Effect, Fiber, Redacted } from "effect"
import * as Mysql from "mysql2"
import * as MysqlPromise from "mysql2/promise"
import * as Net from "node:net"
import {
  connect,
  expectSome,
  freshKey,
  holderOf,
  lineUp,
  lockOf,
  millis,
  MysqlServer,
  newRequest,
  onBoth,
  optionsFor,
  rows,
  until,
  value,
  waitersOf
} from "./support.ts"

const bareOptions = ({ server }: MysqlServer["Service"]) => ({
  host: server.host,
  port: server.port,
  user: server.username,
  password: server.password,
  database: server.database
})

const poolOf = (options: Mysql.PoolOptions) =>
  Effect.acquireRelease(
    Effect.sync(() => Mysql.createPool(options)),
    (pool) => Effect.promise(() => pool.promise().end())
  )

/** A backend takes, hands over and releases. */
const works = Effect.fnUntraced(function*(
  backend: Effect.Success<ReturnType<typeof MysqlLock.make>>,
  bare: MysqlPromise.Connection
) {
  const key = freshKey()
  const [first, second] = [{ ...newRequest(key), spare: 3 }, newRequest(key)]
  const grant = expectSome(yield* backend.tryAcquire(first), "free")
  const waiting = yield* lineUp(bare, backend, second)
  expectSome(yield* backend.renew(first, { fresh: true }), "held")
  assert.strictEqual(yield* backend.release(first), "released")
  const next = yield* Fiber.join(waiting)
  assert.isTrue(next.tokens.first > grant.tokens.first + BigInt(grant.tokens.spare), "tokens grow")
  assert.strictEqual(yield* backend.release(second), "released")
})

onBoth((it, flavour) => {
  describe("settings of the server that would change what statements mean", () => {
    for (
      const [setting, normal] of [
        ["sql_select_limit = 1", "sql_select_limit = DEFAULT"],
        ["max_join_size = 1", "max_join_size = DEFAULT"],
        ["sql_mode = 'ANSI,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES'", "sql_mode = DEFAULT"],
        ["autocommit = 0", "autocommit = 1"],
        ["wait_timeout = 1", "wait_timeout = DEFAULT"]
      ] as const
    ) {
      it.effect(setting, () =>
        Effect.gen(function*() {
          const { bare, server } = yield* MysqlServer
          yield* rows(bare, `SET GLOBAL ${setting}`)
          yield* Effect.gen(function*() {
            yield* works(yield* MysqlLock.make(optionsFor(server)), bare)
            yield* works(yield* MysqlLock.make({ ...optionsFor(server), fencing: { table: "tokens" } }), bare)
          }).pipe(Effect.ensuring(rows(bare, `SET GLOBAL ${normal}`)))
        }))
    }

    it.effect("init_connect, for a user without privileges", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        yield* rows(bare, "CREATE USER 'plain'@'%' IDENTIFIED BY 'plain'")
        yield* rows(bare, "SET GLOBAL init_connect = 'SET NAMES binary'")
        yield* Effect.gen(function*() {
          const backend = yield* MysqlLock.make({
            ...optionsFor(server),
            username: "plain",
            password: Redacted.make("plain"),
            database: undefined
          })
          yield* works(backend, bare)
          const [key, request] = [freshKey(), newRequest(freshKey())]
          yield* backend.acquire(request)
          assert.strictEqual((yield* backend.inspect(request.key)).waiting, 0)
          assert.strictEqual((yield* backend.inspect(key)).holder._tag, "None")
        }).pipe(
          Effect.ensuring(rows(bare, "SET GLOBAL init_connect = ''")),
          Effect.ensuring(rows(bare, "DROP USER 'plain'@'%'"))
        )
      }))
  })

  describe("a pool of the caller's", () => {
    const odd: ReadonlyArray<Mysql.PoolOptions> = [
      { charset: "BINARY" },
      { typeCast: false, supportBigNumbers: true, bigNumberStrings: true },
      { rowsAsArray: false, namedPlaceholders: true, nestTables: "_", dateStrings: true, decimalNumbers: true },
      { multipleStatements: true, resetOnRelease: true, flags: ["-FOUND_ROWS"] }
    ]
    for (const options of odd) {
      it.effect(`may have any settings: ${Object.keys(options)}`, () =>
        Effect.gen(function*() {
          const mysql = yield* MysqlServer
          const pool = yield* poolOf({ ...bareOptions(mysql), ...options })
          yield* works(yield* MysqlLock.makeClient(pool), mysql.bare)
          yield* works(yield* MysqlLock.makeClient(pool, { fencing: { table: "tokens" } }), mysql.bare)
        }))
    }

    it.effect("may be one of mysql2/promise", () =>
      Effect.gen(function*() {
        const mysql = yield* MysqlServer
        const pool = yield* Effect.acquireRelease(
          Effect.sync(() => MysqlPromise.createPool(bareOptions(mysql))),
          (pool) => Effect.promise(() => pool.end())
        )
        yield* works(yield* MysqlLock.makeClient(pool), mysql.bare)
      }))

    it.effect("gives connections with an open transaction and locks: they are reset", () =>
      Effect.gen(function*() {
        const mysql = yield* MysqlServer
        const { bare } = mysql
        yield* rows(bare, "CREATE TABLE IF NOT EXISTS locks.rows_of_the_application (id INT PRIMARY KEY)")
        const pool = yield* poolOf({ ...bareOptions(mysql), connectionLimit: 3 })
        const key = freshKey()
        const dirty = yield* Effect.promise(() => pool.promise().getConnection())
        yield* rows(dirty, "START TRANSACTION")
        yield* rows(dirty, "INSERT INTO locks.rows_of_the_application VALUES (1)")
        yield* value(dirty, `SELECT GET_LOCK('${key}', 0)`)
        dirty.release()
        const backend = yield* MysqlLock.makeClient(pool)
        assert.strictEqual(yield* holderOf(bare, key), undefined, "its lock is gone")
        yield* rows(bare, "INSERT INTO locks.rows_of_the_application VALUES (1)")
        yield* works(backend, bare)
        yield* rows(bare, "DROP TABLE locks.rows_of_the_application")
      }))
  })

  describe("a pool of the caller's, whose connections wait for long", () => {
    it.effect("gets TCP keep-alive", () =>
      Effect.gen(function*() {
        const mysql = yield* MysqlServer
        const pool = yield* poolOf({ ...bareOptions(mysql), enableKeepAlive: false })
        const keepAlive = yield* Effect.acquireRelease(
          Effect.sync(() => vi.spyOn(Net.Socket.prototype, "setKeepAlive")),
          (spy) => Effect.sync(() => spy.mockRestore())
        )
        yield* MysqlLock.makeClient(pool)
        assert.deepInclude(keepAlive.mock.calls, [true, 10_000])
      }))

    for (
      const [what, options] of [
        ["lets us wait", {}],
        ["lets no request wait", { waitForConnections: false }],
        ["lets one wait", { queueLimit: 1 }]
      ] as const
    ) {
      it.effect(`is outlasted by waiters when it is full and ${what}`, () =>
        Effect.gen(function*() {
          const mysql = yield* MysqlServer
          const { bare } = mysql
          const pool = yield* poolOf({ ...bareOptions(mysql), connectionLimit: 2, ...options })
          let queued = 0
          pool.on("enqueue", () => queued++)
          const client = yield* MysqlLock.makeClient(pool, { commandTimeout: "1 second" })
          const own = newRequest(freshKey())
          expectSome(yield* client.tryAcquire(own), "free")
          // More than make connections at a time.
          const keys = Array.from({ length: 21 }, freshKey)
          yield* Effect.forEach(keys, (key) => value(bare, `SELECT GET_LOCK('${key}', 0)`))
          const [first = own, ...others] = keys.map((key) => newRequest(key))
          const waiting = yield* lineUp(bare, client, first)
          const late = yield* Effect.forEach(
            others,
            (request) => Effect.forkScoped(client.acquire(request), { startImmediately: true })
          )
          for (let i = 0; i < 5; i++) {
            const error = yield* Effect.flip(client.tryAcquire(newRequest(freshKey(), "5 seconds")))
            assert.strictEqual(error.reason, "Unreachable")
            assert.isTrue(late.every((fiber) => fiber.pollUnsafe() === undefined), "they wait for a connection")
            assert.include(error.message, "pool")
          }
          assert.isAtMost(queued, 16, "what waits in the pool's queue is used by the next one that asks")
          yield* Fiber.interrupt(waiting)
          yield* client.release(first)
          const inLine = Effect.map(Effect.forEach(keys, (key) => waitersOf(bare, key)), (all) => all.includes(1))
          yield* until(inLine).pipe(Effect.timeout("20 seconds"))
          yield* Effect.forEach(keys, (key) => value(bare, `SELECT RELEASE_LOCK('${key}')`))
          yield* Fiber.joinAll(late)
          const released = yield* Effect.forEach([own, ...others], client.release)
          assert.isTrue(released.every((answer) => answer === "released"))
        }))
    }
  })

  describe("a table of tokens that others lock", () => {
    /** What locks it, and what ends that. */
    const ways = [
      ["FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES"],
      ["LOCK TABLES locks.blocked READ", "UNLOCK TABLES"],
      ["START TRANSACTION; SELECT * FROM locks.blocked FOR UPDATE", "COMMIT"]
    ] as const
    for (const [block, unblock] of ways) {
      it.effect(`costs no lease, and is an error of the requests that need a token: ${block}`, () =>
        Effect.gen(function*() {
          const { bare, server } = yield* MysqlServer
          const lock = yield* lockOf({ ...optionsFor(server), fencing: { table: "blocked" } })
          const backend = yield* MysqlLock.make({ ...optionsFor(server), fencing: { table: "blocked" } })
          const key = freshKey()
          const known = newRequest(key, "2 seconds")
          const [held, end] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
          yield* backend.acquire(known)
          const section = yield* Effect.forkScoped(
            lock.withLock(
              freshKey(),
              Effect.andThen(Deferred.succeed(held, undefined), Effect.as(Deferred.await(end), "done")),
              { ttl: "4 seconds" }
            )
          )
          yield* Deferred.await(held)
          yield* backend.release(known)
          const other = yield* connect(server)
          for (const sql of block.split("; ")) yield* rows(other, sql)
          const [error, took] = yield* millis(Effect.flip(backend.acquire(newRequest(key, "2 seconds"))))
          assert.strictEqual(error.reason, "Unreachable")
          assert.include(error.message, "Lock wait timeout exceeded")
          assert.isAtMost(took, 10_000, "the ttl, on a busy machine")
          // For longer than the ttl.
          yield* Effect.sleep("5 seconds")
          yield* Deferred.succeed(end, undefined)
          assert.strictEqual(yield* Fiber.join(section), "done", "what is held is renewed meanwhile")
          yield* rows(other, unblock)
          yield* works(backend, bare)
        }))
    }

    it.effect("many at once get their tokens, each greater than the last one of its key", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const options = { ...optionsFor(server), fencing: { table: "locks.many" } }
        const backends = [yield* MysqlLock.make(options), yield* MysqlLock.make(options)]
        const keys = Array.from({ length: 300 }, freshKey)
        for (let round = 0; round < 4; round++) {
          const backend = backends[round % 2]
          assert(backend)
          yield* Effect.forEach(keys, (key, i) =>
            Effect.gen(function*() {
              const request = { ...newRequest(key), spare: i % 3 }
              const grant = expectSome(yield* backend.tryAcquire(request), "free")
              assert.strictEqual(grant.tokens.first, BigInt(round * (2 * (i % 3) + 2) + 1))
              assert.strictEqual(grant.tokens.spare, i % 3)
              const more = expectSome(yield* backend.renew(request, { spare: i % 3 }), "held").tokens
              assert.strictEqual(more?.first, grant.tokens.first + BigInt(i % 3) + 1n)
              assert.strictEqual(yield* backend.release(request), "released")
            }), { concurrency: "unbounded" })
        }
        assert.strictEqual(yield* value(bare, "SELECT COUNT(*) FROM locks.many"), 300)
      }))

    it.effect("a holder that lost its lock and does not know gets no token that is greater than the next one's", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const options = { ...optionsFor(server), fencing: { table: "locks.robbed" } }
        const [a, b] = [yield* MysqlLock.make(options), yield* MysqlLock.make(options)]
        const [robbed, next] = [newRequest(freshKey()), newRequest(freshKey())]
        yield* a.acquire(robbed)
        const other = yield* connect(server)
        yield* rows(other, "LOCK TABLES locks.robbed READ")
        const renewing = yield* Effect.forkScoped(Effect.exit(a.renew(robbed, { spare: 5 })), {
          startImmediately: true
        })
        yield* until(
          Effect.map(
            value(bare, "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'INSERT INTO%robbed%'"),
            (n) => Number(n) > 0
          )
        )
        yield* rows(bare, `KILL ${yield* holderOf(bare, robbed.key)}`)
        yield* rows(other, "UNLOCK TABLES")
        const exit = yield* Fiber.join(renewing)
        assert.isTrue(exit._tag === "Failure" || exit.value._tag === "None", "it gets none")
        const again = yield* b.acquire({ ...next, key: robbed.key })
        assert.strictEqual(again.tokens.first, 2n)
      }))
  })

  if (flavour.name === "MySQL") {
    it.effect("tokens of UUID_SHORT are reserved in one statement", () =>
      Effect.gen(function*() {
        const { server } = yield* MysqlServer
        const backend = yield* MysqlLock.make(optionsFor(server))
        const request = { ...newRequest(freshKey()), spare: 63 }
        const grant = expectSome(yield* backend.tryAcquire(request), "free")
        assert.strictEqual(grant.tokens.spare, 63)
        const more = expectSome(yield* backend.renew(request, { spare: 0 }), "held").tokens
        assert.isTrue(more !== undefined && more.first > grant.tokens.first + BigInt(grant.tokens.spare))
      }))
  }
})
