/**
 * What is particular to MySQL and MariaDB.
 */
import { MysqlLock } from "@dlock/mysql"
import { assert, describe } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Option, Redacted } from "effect"
import * as Mysql from "mysql2"
import * as Crypto from "node:crypto"
import * as Fs from "node:fs"
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

const setting = Effect.gen(function*() {
  const { bare, server } = yield* MysqlServer
  return { bare, server, backend: yield* MysqlLock.make(optionsFor(server)) }
})

/** How many statements the server has been asked. */
const questions = (bare: Parameters<typeof rows>[0]) =>
  Effect.map(rows(bare, "SHOW GLOBAL STATUS LIKE 'Questions'"), ([row]) => Number(row?.[1]))

const sessionsOf = (bare: Parameters<typeof rows>[0]) =>
  Effect.map(rows(bare, "SELECT id FROM information_schema.processlist WHERE user = 'app'"), (all) => all.length)

onBoth((it, flavour) => {
  describe("interop", () => {
    it.effect("a bare GET_LOCK of a simple key excludes us", () =>
      Effect.gen(function*() {
        const { backend, bare } = yield* setting
        const key = freshKey()
        yield* value(bare, `SELECT GET_LOCK('${key}', 0)`)
        assert.isTrue(Option.isNone(yield* backend.tryAcquire(newRequest(key))))
        const request = newRequest(key)
        const waiting = yield* Effect.forkScoped(backend.acquire(request), { startImmediately: true })
        yield* until(Effect.map(waitersOf(bare, key), (n) => n === 1))
        yield* value(bare, `SELECT RELEASE_LOCK('${key}')`)
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* value(bare, `SELECT GET_LOCK('${key}', 0)`), 0)
        assert.strictEqual(yield* backend.release(request), "released")
      }))

    it.effect("a bare GET_LOCK of a simple key is excluded by us, and stands in the same line", () =>
      Effect.gen(function*() {
        const { backend, bare, server } = yield* setting
        const key = freshKey()
        const holder = newRequest(key)
        yield* backend.acquire(holder)
        assert.strictEqual(yield* value(bare, `SELECT GET_LOCK('${key}', 0)`), 0)
        const order: Array<string> = []
        const bares = []
        for (const name of ["first", "third"]) {
          const connection = yield* connect(server)
          bares.push(
            yield* Effect.forkScoped(
              Effect.gen(function*() {
                yield* value(connection, `SELECT GET_LOCK('${key}', 60)`)
                order.push(name)
                yield* value(connection, `SELECT RELEASE_LOCK('${key}')`)
              }),
              { startImmediately: true }
            )
          )
          yield* until(Effect.map(waitersOf(bare, key), (n) => n === (name === "first" ? 1 : 3)))
          if (name === "first") {
            const request = newRequest(key)
            const fiber = yield* lineUp(bare, backend, request)
            bares.push(
              yield* Effect.forkScoped(
                Effect.gen(function*() {
                  yield* Fiber.join(fiber)
                  order.push("second")
                  yield* backend.release(request)
                })
              )
            )
          }
        }
        yield* backend.release(holder)
        yield* Fiber.joinAll(bares)
        assert.deepStrictEqual(order, ["first", "second", "third"])
      }))

    it.effect("keys that differ in case only are different locks, on both servers", () =>
      Effect.gen(function*() {
        const { backend } = yield* setting
        const key = freshKey()
        const [lower, upper] = [newRequest(key), newRequest(key.toUpperCase())]
        expectSome(yield* backend.tryAcquire(lower), "lower case is free")
        expectSome(yield* backend.tryAcquire(upper), "upper case is another key")
        assert.strictEqual(yield* backend.release(lower), "released")
        assert.strictEqual(yield* backend.release(upper), "released")
      }))

    it.effect("programs with different prefixes do not disturb each other", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* setting
        const one = yield* MysqlLock.make({ ...optionsFor(server), keyPrefix: "one:" })
        const two = yield* MysqlLock.make({ ...optionsFor(server), keyPrefix: "two:" })
        const key = freshKey()
        expectSome(yield* one.tryAcquire(newRequest(key)), "free")
        expectSome(yield* two.tryAcquire(newRequest(key)), "free under another prefix")
        assert.isNumber(yield* value(bare, `SELECT IS_USED_LOCK('one:${key}')`))
      }))
  })

  describe("costs", () => {
    it.effect("10,000 free locks live on one connection, and cost at most one statement per second", () =>
      Effect.gen(function*() {
        const { backend, bare } = yield* setting
        const before = yield* sessionsOf(bare)
        const requests = Array.from({ length: 10_000 }, () => newRequest(freshKey()))
        const grants = yield* Effect.forEach(requests, backend.tryAcquire, { concurrency: "unbounded" })
        assert.isTrue(grants.every(Option.isSome))
        assert.isAtMost(yield* sessionsOf(bare), before, "no connection but the first")
        const asked = yield* questions(bare)
        const [, took] = yield* millis(Effect.gen(function*() {
          for (let step = 0; step < 60; step++) {
            yield* Effect.sleep("100 millis")
            const due = requests.filter((_, i) => i % 100 === step)
            const renewed = yield* Effect.forEach(due, (request) => backend.renew(request, {}))
            assert.isTrue(renewed.every(Option.isSome))
          }
        }))
        // One of them is the question itself.
        const cost = (yield* questions(bare)) - asked - 1
        assert.isAtMost(cost, took / 1000, "at most one per second")
        assert.isAtLeast(cost, 1, "the session is kept alive")
        const released = yield* Effect.forEach(requests, backend.release, { concurrency: "unbounded" })
        assert.isTrue(released.every((answer) => answer === "released"))
      }))

    it.effect("an answer that came while the event loop was blocked is not overdue", () =>
      Effect.gen(function*() {
        const { server } = yield* MysqlServer
        const backend = yield* MysqlLock.make({ ...optionsFor(server), commandTimeout: "1 second" })
        yield* backend.tryAcquire(newRequest(freshKey()))
        for (let i = 0; i < 3; i++) {
          yield* Effect.yieldNow
          const trying = yield* Effect.forkScoped(backend.tryAcquire(newRequest(freshKey())), {
            startImmediately: true
          })
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500)
          expectSome(yield* Fiber.join(trying), "free")
        }
      }))

    it.effect("a hand-over within a program is one statement: the release, and the next one's request", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* setting
        const lock = yield* lockOf(optionsFor(server))
        const key = freshKey()
        const round = Effect.forEach(
          Array.from({ length: 50 }),
          () => lock.withLock(key, Effect.sleep("1 millis")),
          { concurrency: "unbounded", discard: true }
        )
        yield* round
        const asked = yield* questions(bare)
        yield* round
        const cost = (yield* questions(bare)) - asked - 1
        assert.isAtMost(cost, 50 + 3)
      }))
  })

  describe("the line", () => {
    it.effect("interrupting a waiter ends its GET_LOCK on the server, and with it its connection", () =>
      Effect.gen(function*() {
        const { backend, bare } = yield* setting
        const key = freshKey()
        const holder = newRequest(key)
        yield* backend.acquire(holder)
        for (let i = 0; i < 20; i++) {
          const request = newRequest(key)
          const waiting = yield* lineUp(bare, backend, request)
          const leaving = Effect.andThen(Fiber.interrupt(waiting), backend.release(request))
          const [, took] = yield* millis(
            Effect.andThen(leaving, until(Effect.map(waitersOf(bare, key), (n) => n === 0)))
          )
          assert.isAtMost(took, 5000, "long before the wait is over")
        }
        // Ours to look, one shared, and one for waits.
        yield* until(Effect.map(sessionsOf(bare), (n) => n <= 1 + 2))
        assert.strictEqual(yield* backend.release(holder), "released")
      }))

    it.effect("one that waits elsewhere goes before the next one of this program, whose request comes with the release", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const lock = yield* lockOf(optionsFor(server))
        const elsewhere = yield* connect(server)
        const key = freshKey()
        const order: Array<string> = []
        const end = yield* Deferred.make<void>()
        const first = yield* Effect.forkScoped(lock.withLock(key, Deferred.await(end)))
        yield* until(Effect.map(holderOf(bare, key), (id) => id !== undefined))
        const next = yield* Effect.forkScoped(lock.withLock(key, Effect.sync(() => order.push("next"))))
        const foreign = yield* Effect.forkScoped(Effect.gen(function*() {
          yield* value(elsewhere, `SELECT GET_LOCK('${key}', 60)`)
          order.push("elsewhere")
          yield* value(elsewhere, `SELECT RELEASE_LOCK('${key}')`)
        }))
        yield* until(Effect.map(waitersOf(bare, key), (n) => n === 1))
        // The turn of this program is over.
        yield* Effect.sleep("100 millis")
        yield* Deferred.succeed(end, undefined)
        yield* Effect.all([Fiber.join(first), Fiber.join(next), Fiber.join(foreign)])
        assert.deepStrictEqual(order, ["elsewhere", "next"])
      }))

    it.effect("a released wait is gone from the server, so nothing but a later request gets the key", () =>
      Effect.gen(function*() {
        const { backend, bare } = yield* setting
        yield* Effect.forEach(Array.from({ length: 20 }), () =>
          Effect.gen(function*() {
            const key = freshKey()
            const holder = newRequest(key)
            expectSome(yield* backend.tryAcquire(holder), "a free key is granted")
            const requests = [newRequest(key), newRequest(key), newRequest(key)]
            const waiting = yield* Effect.forEach(requests, (request) =>
              Effect.forkScoped(backend.acquire(request), { startImmediately: true }))
            yield* until(Effect.map(waitersOf(bare, key), (n) =>
              n === 3))
            yield* Fiber.interruptAll(waiting)
            yield* Effect.forEach(requests, backend.release, { concurrency: "unbounded" })
            assert.strictEqual(yield* backend.release(holder), "released")
            const last = newRequest(key)
            expectSome(yield* backend.tryAcquire(last), "a key whose waiters were released is free")
            yield* backend.release(last)
          }), { concurrency: 4, discard: true })
      }))

    it.effect("a statement time limit of the server does not end a wait", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const [variable, unit] = flavour.name === "MySQL"
          ? ["max_execution_time", 300]
          : ["max_statement_time", 0.3]
        yield* rows(bare, `SET GLOBAL ${variable} = ${unit}`)
        const backend = yield* MysqlLock.make(optionsFor(server))
        yield* rows(bare, `SET GLOBAL ${variable} = 0`)
        const key = freshKey()
        const holder = newRequest(key)
        yield* value(bare, `SELECT GET_LOCK('${key}', 0)`)
        const waiting = yield* lineUp(bare, backend, holder)
        const since = yield* value(bare, "SELECT NOW(6)")
        yield* Effect.sleep("1 seconds")
        assert.isDefined(since)
        const [longest] = yield* rows(
          bare,
          "SELECT MAX(time) FROM information_schema.processlist WHERE state = 'User lock'"
        )
        assert.isAtLeast(Number(longest?.[0]), 1, "it is still the same wait")
        yield* value(bare, `SELECT RELEASE_LOCK('${key}')`)
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* backend.release(holder), "released")
      }))

    it.effect("a KILL QUERY from outside sends a waiter to the end of the line, and no further", () =>
      Effect.gen(function*() {
        const { backend, bare } = yield* setting
        const key = freshKey()
        yield* value(bare, `SELECT GET_LOCK('${key}', 0)`)
        const request = newRequest(key)
        const waiting = yield* lineUp(bare, backend, request)
        const waiter = value(bare, "SELECT id FROM information_schema.processlist WHERE state = 'User lock'")
        yield* rows(bare, `KILL QUERY ${yield* waiter}`)
        yield* Effect.sleep("50 millis")
        yield* until(Effect.map(waitersOf(bare, key), (n) => n === 1))
        assert.isUndefined(waiting.pollUnsafe())
        yield* rows(bare, `KILL ${yield* waiter}`)
        yield* Effect.sleep("50 millis")
        yield* until(Effect.map(waitersOf(bare, key), (n) => n === 1))
        assert.isUndefined(waiting.pollUnsafe())
        yield* value(bare, `SELECT RELEASE_LOCK('${key}')`)
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* backend.release(request), "released")
      }))

    it.effect("a foreign program that closes a cycle of waits gets the deadlock, or we wait on", () =>
      Effect.gen(function*() {
        const { backend, bare } = yield* setting
        const [mine, theirs] = [newRequest(freshKey()), newRequest(freshKey())]
        yield* backend.acquire(mine)
        yield* value(bare, `SELECT GET_LOCK('${theirs.key}', 0)`)
        const { server } = yield* MysqlServer
        const other = yield* connect(server)
        const waiting = yield* lineUp(other, backend, theirs)
        // Our waits are on sessions that hold nothing, so this is no cycle for the server.
        const foreign = yield* Effect.forkScoped(value(bare, `SELECT GET_LOCK('${mine.key}', 60)`))
        yield* until(Effect.map(waitersOf(other, mine.key), (n) => n === 1))
        assert.isUndefined(waiting.pollUnsafe())
        assert.strictEqual(yield* backend.release(mine), "released")
        assert.strictEqual(yield* Fiber.join(foreign), 1)
        yield* value(bare, "SELECT RELEASE_ALL_LOCKS()").pipe(
          Effect.catchDefect(() => value(bare, `SELECT RELEASE_LOCK('${theirs.key}'), RELEASE_LOCK('${mine.key}')`))
        )
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* backend.release(theirs), "released")
      }))
  })

  describe("fencing", () => {
    it.effect("tokens out of a table grow, in a table that is made when it is missing", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const table = `locks.tokens_${crypto.randomUUID().replaceAll("-", "")}`
        const key = freshKey()
        const tokens: Array<bigint> = []
        for (let client = 0; client < 2; client++) {
          const backend = yield* MysqlLock.make({ ...optionsFor(server), fencing: { table } })
          for (let i = 0; i < 3; i++) {
            const request = newRequest(key)
            const grant = yield* i === 0
              ? Effect.map(backend.tryAcquire(request), (grant) => expectSome(grant, "free"))
              : backend.acquire(request)
            tokens.push(grant.tokens.first)
            assert.strictEqual(yield* backend.release(request), "released")
          }
        }
        assert.deepStrictEqual(tokens, [1n, 2n, 3n, 4n, 5n, 6n])
        assert.deepStrictEqual(yield* rows(bare, `SELECT name, token FROM ${table}`), [[key, 6]])
        const upper = newRequest(key.toUpperCase())
        const backend = yield* MysqlLock.make({ ...optionsFor(server), fencing: { table } })
        assert.strictEqual(expectSome(yield* backend.tryAcquire(upper), "free").tokens.first, 1n, "another key")
      }))

    it.effect("a waiter gets its token after the holder before it", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const options = { ...optionsFor(server), fencing: { table: "tokens" } }
        const [a, b] = [yield* MysqlLock.make(options), yield* MysqlLock.make(options)]
        const key = freshKey()
        const [first, second] = [newRequest(key), newRequest(key)]
        const one = yield* a.acquire(first)
        const waiting = yield* lineUp(bare, b, second)
        yield* a.release(first)
        assert.isTrue((yield* Fiber.join(waiting)).tokens.first > one.tokens.first)
      }))

    it.effect("a grant whose token is unavailable is released", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const lock = yield* lockOf({ ...optionsFor(server), fencing: { table: "lost_tokens" } })
        yield* rows(bare, "DROP TABLE locks.lost_tokens")
        const key = freshKey()
        const error = yield* Effect.flip(lock.withLock(key, Effect.void))
        assert.strictEqual(error._tag, "LockBackendError")
        assert.include(error.message, "lost_tokens")
        yield* until(Effect.map(holderOf(bare, key), (id) => id === undefined))
      }))

    it.effect("without a database the table needs its own", () =>
      Effect.gen(function*() {
        const { server } = yield* MysqlServer
        const { database: _, ...options } = optionsFor(server)
        const error = yield* Effect.flip(MysqlLock.make({ ...options, fencing: { table: "tokens" } }))
        assert.strictEqual(error.reason, "Rejected")
        assert.include(error.message, "No database selected")
        yield* MysqlLock.make({ ...options, fencing: { table: "locks.tokens" } })
      }))
  })

  describe("connecting", () => {
    it.effect("an unknown database fails the build and says so", () =>
      Effect.gen(function*() {
        const { server } = yield* MysqlServer
        const error = yield* Effect.flip(MysqlLock.make({ ...optionsFor(server), database: "nowhere" }))
        assert.strictEqual(error.reason, "Rejected")
        assert.include(error.message, "nowhere")
      }))

    it.effect("invalid options are named", () =>
      Effect.gen(function*() {
        const { server } = yield* MysqlServer
        const options = optionsFor(server)
        const bads: ReadonlyArray<readonly [object, string]> = [
          [{ port: 70_000 }, "port"],
          [{ connectionLimit: 1 }, "connectionLimit"],
          [{ connectionLimit: 2, fencing: { table: "tokens" } }, "connectionLimit"],
          [{ commandTimeout: "5 lightyears" }, "commandTimeout"],
          [{ commandTimeout: Duration.infinity }, "commandTimeout"],
          [{ commandTimeout: -5 }, "commandTimeout"],
          [{ fencing: { table: "a; DROP TABLE b" } }, "fencing"],
          [{ fencing: "table" }, "fencing"],
          [{ addr: "localhost" }, "addr"],
          [{ url: "mysql://localhost" }, "url"],
          [{ socketPath: "/run/mysqld.sock" }, "socketPath"],
          [{ host: undefined, port: undefined, url: "postgres://localhost" }, "url"],
          [{ host: undefined, port: undefined, url: "mysql://u:hunter2%zz@localhost" }, "url"],
          [{ host: undefined, port: undefined, url: "mysql://u:hunter2@localhost?ssl=true" }, "url"],
          [{ tls: { ca: "/no/such/file" } }, "tls.ca"],
          [{ tls: { rejectUnauthorized: false } }, "rejectUnauthorized"]
        ]
        for (const [bad, what] of bads) {
          const error = yield* Effect.flip(MysqlLock.make({ ...options, ...bad }))
          assert.strictEqual(error.reason, "Options", what)
          assert.include(error.message, what)
          assert.notInclude(error.message, "hunter2")
        }
      }))

    it.effect("a pool of the caller's is used, is left open, and gets no connection of ours back", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const pool = yield* Effect.acquireRelease(
          Effect.sync(() =>
            Mysql.createPool({
              host: server.host,
              port: server.port,
              user: server.username,
              password: server.password,
              connectionLimit: 5
            })
          ),
          (pool) => Effect.promise(() => pool.promise().end())
        )
        const ask = (sql: string) => Effect.promise(() => pool.promise().query<Mysql.RowDataPacket[]>(sql))
        const key = freshKey()
        yield* Effect.scoped(Effect.gen(function*() {
          const backend = yield* MysqlLock.makeClient(pool, { connectionLimit: 4 })
          const [holder, waiter] = [newRequest(key, "2 seconds"), newRequest(key, "2 seconds")]
          yield* backend.acquire(holder)
          const waiting = yield* lineUp(bare, backend, waiter)
          yield* backend.release(holder)
          yield* Fiber.join(waiting)
          assert.strictEqual(yield* backend.release(waiter), "released")
        }))
        for (let i = 0; i < 10; i++) {
          const [[row]] = yield* ask("SELECT @@session.wait_timeout AS t")
          assert.strictEqual(row?.t, 28800, "a connection of the pool is as the caller made it")
        }
      }))

    it.effect("a pool that is exhausted is an error within the command timeout", () =>
      Effect.gen(function*() {
        const { server } = yield* MysqlServer
        const pool = yield* Effect.acquireRelease(
          Effect.sync(() =>
            Mysql.createPool({
              host: server.host,
              port: server.port,
              user: server.username,
              password: server.password,
              connectionLimit: 1
            })
          ),
          (pool) => Effect.promise(() => pool.promise().end())
        )
        const taken = yield* Effect.promise(() => pool.promise().getConnection())
        const error = yield* Effect.flip(MysqlLock.makeClient(pool, { commandTimeout: "300 millis" }))
        assert.strictEqual(error.reason, "Unreachable")
        taken.release()
        yield* MysqlLock.makeClient(pool)
      }))

    it.effect("a server that does not speak TLS, or is not trusted, fails the build and says what to do", () =>
      Effect.gen(function*() {
        const { server } = yield* MysqlServer
        const error = yield* Effect.flip(MysqlLock.make({ ...optionsFor(server), tls: true }))
        assert.strictEqual(error.reason, "Rejected")
        assert.include(error.message, flavour.name === "MySQL" ? "set tls.ca" : "set tls to false")
        assert.include(error.message, `${server.host}:${server.port}`)
      }))

    // MySQL makes certificates of its own, MariaDB 10.11 none.
    const encrypted = flavour.name === "MySQL" ? it.effect : it.effect.skip
    encrypted(
      "TLS with a private authority, and with a certificate of the client; a loss is pushed through it, too",
      () =>
        Effect.gen(function*() {
          const { bare, server } = yield* MysqlServer
          const folder = yield* value(bare, "SELECT @@datadir")
          const { subject } = new Crypto.X509Certificate(Fs.readFileSync(`${folder}server-cert.pem`))
          const ca = `${folder}ca.pem`
          const serverName = subject.replace("CN=", "")
          const wrongName = yield* Effect.flip(
            MysqlLock.make({ ...optionsFor(server), tls: { ca, serverName: "other" } })
          )
          assert.include(wrongName.message, "set tls.serverName")
          yield* rows(bare, "CREATE USER 'certified'@'%' IDENTIFIED BY 'secret' REQUIRE X509")
          const options = { ...optionsFor(server), username: "certified", database: undefined }
          const uncertified = yield* Effect.flip(MysqlLock.make({ ...options, tls: { ca, serverName } }))
          assert.strictEqual(uncertified.reason, "Unauthorized")
          const backend = yield* MysqlLock.make({
            ...options,
            tls: { ca, cert: `${folder}client-cert.pem`, key: `${folder}client-key.pem`, serverName }
          })
          const [request, killed] = [newRequest(freshKey()), newRequest(freshKey())]
          expectSome(yield* backend.tryAcquire(request), "free")
          assert.strictEqual(yield* backend.release(request), "released")
          expectSome(yield* backend.tryAcquire(killed), "free")
          yield* rows(bare, `KILL ${yield* holderOf(bare, killed.key)}`)
          yield* until(Effect.sync(() => killed.losses.length > 0)).pipe(Effect.timeout("8 seconds"))
          yield* rows(bare, "DROP USER 'certified'@'%'")
        })
    )

    it.effect("a URL, and a Unix socket", () =>
      Effect.gen(function*() {
        const { bare, server } = yield* MysqlServer
        const { database, host, password, port, username } = server
        const socketPath = String(yield* value(bare, "SELECT @@socket"))
        for (
          const options of [
            { url: `mysql://${username}:${password}@${host}:${port}/${database}` },
            { url: Redacted.make(`mysql://${username}:wrong@${host}:${port}`), password },
            { socketPath, username, password }
          ]
        ) {
          const backend = yield* MysqlLock.make(options)
          yield* backend.ping
        }
        const wrong = yield* Effect.flip(MysqlLock.make({ url: `mysql://${username}:hunter2@${host}:${port}` }))
        assert.strictEqual(wrong.reason, "Unauthorized")
        assert.notInclude(JSON.stringify(wrong) + String(wrong.stack) + String(wrong.cause), "hunter2")
      }))
  })
})
