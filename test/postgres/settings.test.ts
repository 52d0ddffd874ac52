/**
 * Servers and databases as they may be set up: what is refused at the start, and what has locks.
 */
import { Lock, type LockRequest } from "@dlock/core"
import { PostgresLock } from "@dlock/postgres"
import { PgClient } from "@effect/sql-pg"
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Option } from "effect"
import { postgres } from "../harness/PostgresServer.ts"
import { proxy } from "../harness/Proxy.ts"
import { freshKey, millis, newRequest, until } from "../requests.ts"
import { connect, layerOwn, Target } from "./support.ts"

const commandTimeout = "1 second"

const elsewhere = (url: string, change: (url: URL) => void): string => {
  const changed = new URL(url)
  change(changed)
  return changed.href
}

const sessions = Effect.flatMap(Target, ({ sql }) =>
  Effect.map(
    sql<{ readonly n: number }>`select count(*)::int as n from pg_stat_activity where application_name like 'dlock%'`,
    ([row]) => row?.n
  ))

const inDatabase = Effect.fnUntraced(function*(name: string, options: string) {
  const { server, sql } = yield* Target
  yield* sql.unsafe(`create database ${name} ${options}`)
  return elsewhere(server.url, (url) => {
    url.pathname = name
  })
})

const held = Effect.fnUntraced(function*(url: string) {
  const backend = yield* PostgresLock.make({ url, commandTimeout })
  const request = newRequest(freshKey())
  assert.isTrue(Option.isSome(yield* backend.tryAcquire(request)), "a free key is granted")
  return { backend, request }
})

layer(layerOwn, { excludeTestServices: true, timeout: "1 minute" })("postgres: settings", (it) => {
  describe("refused when the layer is built", () => {
    it.effect("a standby", () =>
      Effect.gen(function*() {
        const { server } = yield* Target
        const standby = yield* postgres({ primary: server })
        const error = yield* Effect.flip(PostgresLock.make({ url: standby.url }))
        assert.strictEqual(error.reason, "Unsupported")
        assert.include(error.message, "standby")
      }))

    it.effect("a database that is not UTF-8", () =>
      Effect.gen(function*() {
        const url = yield* inDatabase("latin", "encoding 'LATIN1' template template0")
        const error = yield* Effect.flip(PostgresLock.make({ url }))
        assert.strictEqual(error.reason, "Unsupported")
        assert.include(error.message, "UTF8")
      }))

    it.effect("a schema that is missing, if it is not to be created", () =>
      Effect.gen(function*() {
        const { url } = yield* Target
        const backend = yield* Effect.flip(
          Effect.flatMap(PostgresLock.make({ url, schema: "nowhere", createSchema: false }), (backend) => backend.ping)
        )
        assert.strictEqual(backend.reason, "Rejected")
        assert.include(backend.message, "schema.sql")
        const given = yield* connect(url)
        const overClient = yield* Effect.flip(
          Effect.flatMap(PostgresLock.makeClient({ schema: "nowhere", createSchema: false }), (backend) => backend.ping)
            .pipe(Effect.provideService(PgClient.PgClient, given))
        )
        assert.include(overClient.message, new URL(url).host, "the address of a client that was made by a url")
      }))
  })

  it.effect("eight layers that start at once create one schema", () =>
    Effect.gen(function*() {
      const url = yield* inDatabase("fresh", "")
      const backends = yield* Effect.replicateEffect(PostgresLock.make({ url }), 8, { concurrency: "unbounded" })
      const key = freshKey()
      const granted = yield* Effect.forEach(backends, (backend) => backend.tryAcquire(newRequest(key)), {
        concurrency: "unbounded"
      })
      assert.lengthOf(granted.filter(Option.isSome), 1)
    }))

  it.effect("a schema of any name, and a prefix", () =>
    Effect.gen(function*() {
      const { sql, url } = yield* Target
      const schema = `It's "odd"`
      const backend = yield* PostgresLock.make({ url, schema, keyPrefix: "app:" })
      const request = newRequest("k")
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(request)))
      const [row] = yield* sql<{ readonly key: string }>`select key from ${sql(schema)}.lease`
      assert.strictEqual(row?.key, "app:k")
      assert.strictEqual(yield* backend.release(request), "released")
    }))

  it.effect("a schema of an older version is brought up to date, and keeps what is held", () =>
    Effect.gen(function*() {
      const { sql, url } = yield* Target
      const schema = "older"
      const before = yield* PostgresLock.make({ url, schema })
      const request = newRequest(freshKey())
      yield* before.tryAcquire(request)
      const functions = yield* sql<{ readonly f: string }>`select oid::regprocedure::text as f from pg_proc
        where pronamespace = 'older'::regnamespace and proname similar to '(try|acquire)_%'`
      assert.lengthOf(functions, 2)
      // Each of them may have a later number than those of that version.
      for (const { f } of functions) {
        yield* sql.unsafe(`drop function ${f}`)
        const after = yield* PostgresLock.make({ url, schema })
        assert.isTrue(Option.isNone(yield* after.tryAcquire(newRequest(request.key))))
        assert.isTrue(Option.isSome(yield* after.tryAcquire(newRequest(freshKey()))))
      }
      assert.strictEqual(yield* before.release(request), "released")
    }))

  it.effect("without rights on the tables, by functions of their owner", () =>
    Effect.gen(function*() {
      const { sql, url } = yield* Target
      yield* PostgresLock.make({ url, schema: "guarded" })
      yield* sql.unsafe(`
        create role plain login password 'plain';
        `)
      yield* sql.unsafe("grant usage on schema guarded to plain")
      const functions = yield* sql<{ readonly f: string }>`select oid::regprocedure::text as f from pg_proc
        where pronamespace = 'guarded'::regnamespace`
      yield* Effect.forEach(functions, ({ f }) =>
        sql.unsafe(`alter function ${f} security definer set search_path = pg_catalog`))
      const plain = elsewhere(url, (url) => {
        url.username = "plain"
        url.password = "plain"
      })
      const backend = yield* PostgresLock.make({ url: plain, schema: "guarded", createSchema: false })
      const request = newRequest(freshKey())
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(request)))
      assert.strictEqual(yield* backend.release(request), "released")
    }))

  for (const isolation of ["serializable", "repeatable read"]) {
    it.effect(`a database whose default is ${isolation}`, () =>
      Effect.gen(function*() {
        const { sql } = yield* Target
        const name = isolation.slice(0, 6)
        const url = yield* inDatabase(name, "")
        yield* sql.unsafe(`alter database ${name} set default_transaction_isolation = '${isolation}'`)
        const client = yield* connect(url)
        const makers = [
          PostgresLock.make({ url }),
          Effect.provideService(PostgresLock.makeClient(), PgClient.PgClient, client)
        ]
        for (const make of makers) {
          const backend = yield* make
          const key = freshKey()
          const first = newRequest(key)
          assert.isTrue(Option.isSome(yield* backend.tryAcquire(first)))
          const second = newRequest(key)
          const waiting = yield* Effect.forkScoped(backend.acquire(second))
          yield* until(
            Effect.map(backend.inspect(key), ({ waiting }) => Array.isArray(waiting) && waiting.length === 1)
          )
          yield* backend.release(first)
          yield* Fiber.join(waiting)
          assert.strictEqual(yield* backend.release(second), "released")
        }
      }))
  }

  it.effect("a server that restarts keeps what is held, and goes on", () =>
    Effect.gen(function*() {
      const { server } = yield* Target
      const { backend, request } = yield* held(server.url)
      yield* server.kill
      assert.strictEqual((yield* Effect.flip(backend.tryAcquire(newRequest(freshKey())))).reason, "Unreachable")
      yield* server.start
      assert.isTrue(Option.isSome(yield* backend.renew(request, {})), "a lease outlives a restart")
      assert.isTrue(Option.isNone(yield* backend.tryAcquire(newRequest(request.key))), "the key is still held")
      const other = newRequest(freshKey())
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(other)), "new keys are granted after the restart")
      assert.deepStrictEqual(request.losses, [])
      assert.strictEqual(yield* backend.release(request), "released")
      // The listener is back as well: sooner or later a hand-over takes less than the look of a waiter would.
      const handOver = Effect.gen(function*() {
        const [first, second] = [newRequest(freshKey()), newRequest("?")]
        const waiter = { ...second, key: first.key }
        yield* backend.tryAcquire(first)
        const waiting = yield* Effect.forkScoped(backend.acquire(waiter))
        yield* until(
          Effect.map(backend.inspect(first.key), ({ waiting }) => Array.isArray(waiting) && waiting.length === 1)
        )
        const [, took] = yield* millis(Effect.andThen(backend.release(first), Fiber.join(waiting)))
        yield* backend.release(waiter)
        return took
      })
      yield* until(Effect.map(Effect.replicateEffect(handOver, 5), (times) => times.every((took) => took < 150)))
    }))

  it.effect("a network that froze: nothing hangs, and what is left of the session on the server ends", () =>
    Effect.gen(function*() {
      const { server } = yield* Target
      const road = yield* proxy(server)
      const url = elsewhere(server.url, (url) => {
        url.port = `${road.port}`
      })
      const { backend, request } = yield* held(url)
      const before = yield* sessions
      yield* road.freeze
      const [error, took] = yield* millis(Effect.flip(backend.tryAcquire(newRequest(freshKey()))))
      assert.strictEqual(error.reason, "Timeout")
      assert.isBelow(took, 10_000)
      assert.isTrue(Option.isSome(yield* backend.renew(request, {})), "the next request goes another way")
      yield* until(Effect.map(sessions, (n) => n !== undefined && before !== undefined && n <= before))
    }))

  it.effect("a connection that falls silent costs a lock nothing", () =>
    Effect.gen(function*() {
      const { server, sql } = yield* Target
      const road = yield* proxy(server)
      const url = elsewhere(server.url, (url) => {
        url.port = `${road.port}`
      })
      const context = yield* Layer.build(PostgresLock.layer({ url }))
      const lease = yield* Context.get(context, Lock).acquire(freshKey(), { ttl: "4 seconds" })
      const ends = Effect.map(
        sql<{ readonly at: number }>`select extract(epoch from expires_at)::float8 as at from dlock.lease
          where key = ${lease.key}`,
        ([row]) => row?.at ?? 0
      )
      const before = yield* ends
      yield* road.freeze
      // The default of the command timeout is longer than the ttl.
      yield* Effect.raceFirst(lease.lost, until(Effect.map(ends, (end) => end > before)))
      assert.isTrue(yield* lease.isHeld)
    }))

  it.effect("a statement that waits for a foreign lock on one key does not hold up the others", () =>
    Effect.gen(function*() {
      const { sql, url } = yield* Target
      const { backend, request } = yield* held(url)
      const others = Array.from({ length: 20 }, () => newRequest(freshKey()))
      yield* Effect.forEach(others, backend.tryAcquire)
      const foreign = yield* Effect.forkScoped(sql.withTransaction(
        Effect.andThen(sql`select 1 from dlock.lease where key = ${request.key} for update`, Effect.never)
      ))
      yield* Effect.sleep("100 millis")
      const renewal = (request: LockRequest) => Effect.exit(backend.renew(request, {}))
      const [stuck, ...renewed] = yield* Effect.forEach([request, ...others], renewal, { concurrency: "unbounded" })
      assert.isTrue(stuck !== undefined && Exit.isFailure(stuck), "a renewal that waits too long fails")
      assert.isTrue(renewed.every(Exit.isSuccess), "renewals that go out with it are answered")
      yield* Fiber.interrupt(foreign)
      assert.isTrue(Option.isSome(yield* backend.renew(request, {})), "and is answered afterwards")
    }))
})
