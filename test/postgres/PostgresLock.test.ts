/**
 * What is the backend's own: messages, tokens, late requests, sweeping, promotion.
 */
import type { LockBackend, LockRequest } from "@dlock/core"
import { PostgresLock } from "@dlock/postgres"
import { PgClient } from "@effect/sql-pg"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option, Scope } from "effect"
import { pgbouncer, postgres } from "../harness/PostgresServer.ts"
import { available } from "../harness/Program.ts"
import { proxy } from "../harness/Proxy.ts"
import { freshKey, least, millis, newRequest, persist, until } from "../requests.ts"
import { at, connect, layerOwn, switchboard, Target } from "./support.ts"

const waits = (backend: Effect.Success<ReturnType<typeof PostgresLock.make>>, key: string, n = 1) =>
  until(Effect.map(backend.inspect(key), ({ waiting }) => Array.isArray(waiting) && waiting.length === n))

layer(layerOwn, { excludeTestServices: true, timeout: "1 minute" })("postgres", (it) => {
  it.effect("inspect tells the holder and the line, ping answers", () =>
    Effect.gen(function*() {
      const { make, url } = yield* Target
      const backend = yield* make(url)
      const [holder, first, second] = [newRequest(freshKey()), newRequest("?"), newRequest("?")]
      const key = holder.key
      assert.deepStrictEqual(yield* backend.inspect(key), { holder: Option.none(), waiting: [] })
      const grant = Option.getOrThrow(yield* backend.tryAcquire(holder))
      for (const [i, waiter] of [first, second].entries()) {
        yield* Effect.forkScoped(backend.acquire({ ...waiter, key }))
        yield* waits(backend, key, i + 1)
      }
      const { holder: found, waiting } = yield* backend.inspect(key)
      assert.deepStrictEqual(waiting, [first.owner, second.owner])
      const { owner, remaining = 0, token } = Option.getOrThrow(found)
      assert.deepStrictEqual([owner, token], [holder.owner, grant.tokens.first])
      assert.isTrue(remaining > 20_000 && remaining <= 30_000)
      yield* backend.ping
    }))

  it.effect("a holder is told at once that another process waits, and that it was revoked", () =>
    Effect.gen(function*() {
      const { make, url } = yield* Target
      const [a, b] = [yield* make(url), yield* make(url)]
      assert.isTrue(a.tellsWanted)
      const holder = newRequest(freshKey())
      const waiter = newRequest(holder.key)
      yield* a.tryAcquire(holder)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* Effect.timeout(Deferred.await(holder.wanted), "20 seconds")
      assert.isTrue(yield* b.revoke(holder.key, holder.owner))
      yield* Effect.timeout(Deferred.await(holder.lost), "20 seconds")
      assert.deepStrictEqual(holder.losses, ["taken"])
      yield* Fiber.join(waiting)
      assert.strictEqual(yield* a.release(holder), "gone")
      assert.isFalse(yield* a.revoke(holder.key, holder.owner))
      assert.isTrue(Option.isSome(yield* b.renew(waiter, {})))
    }))

  it.effect("each of many requests in one statement gets its own answer", () =>
    Effect.gen(function*() {
      const { make, url } = yield* Target
      const [a, b] = [yield* make(url), yield* make(url)]
      const holders = Array.from({ length: 9 }, () => newRequest(freshKey()))
      const isOurs = holders.map((_, i) => i % 3 > 0)
      const together = { concurrency: "unbounded" } as const
      yield* Effect.forEach(holders, (holder, i) => (isOurs[i] ? Effect.void : b.tryAcquire(newRequest(holder.key))))
      const granted = yield* Effect.forEach(holders, a.tryAcquire, together)
      assert.deepStrictEqual(granted.map(Option.isSome), isOurs)
      const again = yield* Effect.forEach(holders, (holder) => a.renew(holder, {}), together)
      assert.deepStrictEqual(again.map(Option.isSome), isOurs)
      const released = yield* Effect.forEach(holders, a.release, together)
      assert.deepStrictEqual(released, isOurs.map((ours) => (ours ? "released" : "gone")))
    }))

  it.effect("a holder that is granted a key with a line is told so by the grant", () =>
    Effect.gen(function*() {
      const { make, url } = yield* Target
      const [a, b] = [yield* make(url), yield* make(url)]
      const holder = newRequest(freshKey())
      const [next, last] = [newRequest(holder.key), newRequest(holder.key)]
      yield* a.tryAcquire(holder)
      const served = yield* Effect.forkScoped(b.acquire(next))
      yield* waits(a, holder.key)
      yield* Effect.forkScoped(a.acquire(last))
      yield* waits(a, holder.key, 2)
      yield* a.release(holder)
      yield* Fiber.join(served)
      yield* Effect.timeout(Deferred.await(next.wanted), "20 seconds")
    }))

  it.effect("an acquire that is released before it was sent comes to an end", () =>
    Effect.gen(function*() {
      const { make, url } = yield* Target
      const backend = yield* make(url)
      const request = newRequest(freshKey())
      const waiting = yield* Effect.forkScoped(backend.acquire(request), { startImmediately: true })
      assert.strictEqual(yield* backend.release(request), "gone")
      yield* Effect.timeout(Fiber.await(waiting), "20 seconds")
      assert.deepStrictEqual(yield* backend.inspect(request.key), { holder: Option.none(), waiting: [] })
    }))

  it.effect("a key is handed over at once, and a hand-over costs no look", () =>
    Effect.gen(function*() {
      const { make, url } = yield* Target
      const backend = yield* make(url)
      const key = freshKey()
      let held = newRequest(key)
      yield* backend.tryAcquire(held)
      const handOver = Effect.gen(function*() {
        const next = newRequest(key)
        const waiting = yield* Effect.forkScoped(backend.acquire(next))
        yield* waits(backend, key)
        const [, took] = yield* millis(Effect.andThen(backend.release(held), Fiber.join(waiting)))
        held = next
        return took
      })
      for (let i = 0; i < 10; i++) assert.isBelow(yield* least(400, () => handOver), 400)
    }))

  it.effect("spare tokens are this grant's, lie below the clock, and below those of later grants", () =>
    Effect.gen(function*() {
      const { make, sql, url } = yield* Target
      const backend = yield* make(url)
      const key = freshKey()
      let last = 0n
      for (let i = 0; i < 20; i++) {
        const request = { ...newRequest(key), spare: 63 }
        const { tokens } = Option.getOrThrow(yield* backend.tryAcquire(request))
        const [row] = yield* sql<{ readonly now: bigint }>`select dlock.micros_1(clock_timestamp()) as now`
        assert.isTrue(tokens.first > last && tokens.spare <= 63)
        last = tokens.first + BigInt(tokens.spare)
        assert.isTrue(row !== undefined && last <= row.now, "no token lies ahead of the clock")
        const renewed = Option.getOrThrow(yield* backend.renew(request, { spare: 7 })).tokens
        assert.isTrue(renewed !== undefined && renewed.first > last && renewed.spare <= 7)
        last = renewed === undefined ? last : renewed.first + BigInt(renewed.spare)
        assert.isUndefined(Option.getOrThrow(yield* backend.renew(request, {})).tokens)
        yield* backend.release(request)
      }
    }))

  it.effect("tokens grow also when the clock of the server was ahead before", () =>
    Effect.gen(function*() {
      const { make, sql, url } = yield* Target
      const backend = yield* make(url)
      const request = newRequest(freshKey())
      yield* backend.tryAcquire(request)
      yield* sql`update dlock.lease set token = token + 60000000 where key = ${request.key}`
      const [row] = yield* sql<{ readonly token: bigint }>`select token from dlock.lease where key = ${request.key}`
      yield* backend.release(request)
      const next = { ...newRequest(request.key), spare: 63 }
      const { tokens } = Option.getOrThrow(yield* backend.tryAcquire(next))
      assert.deepStrictEqual(tokens, { first: (row?.token ?? 0n) + 1n, spare: 0 })
    }))

  for (const way of ["directly", "through PgBouncer"] as const) {
    it.effect.skipIf(way !== "directly" && !available("pgbouncer"))(
      `a request that arrives after its release takes nothing, ${way}`,
      () =>
        Effect.gen(function*() {
          const { server, sql } = yield* Target
          const front = way === "directly" ? server : yield* pgbouncer(server)
          const road = yield* proxy(front)
          const url = new URL(server.url)
          url.port = `${road.port}`
          const backend = yield* PostgresLock.make({ url: url.href, commandTimeout: "500 millis" })
          const verbs = [
            (request: LockRequest) => Effect.asVoid(backend.tryAcquire(request)),
            (request: LockRequest) => Effect.asVoid(backend.acquire(request))
          ]
          for (const verb of verbs) {
            const request = newRequest(freshKey())
            yield* road.freeze
            assert.strictEqual(
              (yield* Effect.flip(verb(request))).reason,
              "Timeout"
            )
            assert.strictEqual(yield* backend.release(request), "gone")
            yield* road.pass
            yield* Effect.sleep("300 millis")
            assert.deepStrictEqual(yield* backend.inspect(request.key), { holder: Option.none(), waiting: [] })
            const [row] = yield* sql<
              { readonly n: number }
            >`select count(*)::int as n from dlock.void where owner = ${request.owner}`
            assert.strictEqual(row?.n, 1, "a mark is left for the late request")
          }
        })
    )
  }

  it.effect("a request that is withdrawn while it comes to the row takes nothing", () =>
    Effect.gen(function*() {
      const { make, sql, url } = yield* Target
      const backend = yield* make(url)
      const free = newRequest(freshKey())
      yield* backend.tryAcquire(free)
      yield* backend.release(free)
      const late = newRequest(free.key)
      const [{ tries } = { tries: 0 }] = yield* sql<{ readonly tries: number }>`
        select max(substring(proname from '_(.*)')::int) as tries from pg_proc
        where pronamespace = 'dlock'::regnamespace and proname like 'try\\_%'`
      const attempt = sql.unsafe<{ readonly code: number }>(
        `select dlock.try_${tries}($1, $2, 30000, 0, 'nobody') as code`,
        [late.key, late.owner]
      )
      const other = yield* connect(url)
      const stopped = yield* other.withTransaction(Effect.gen(function*() {
        // Stops the attempt where it looks at the line, before it locks the row.
        yield* other`lock table dlock.waiter in access exclusive mode`
        const attempted = yield* Effect.forkScoped(attempt)
        yield* until(Effect.map(
          sql`select from pg_stat_activity where wait_event_type = 'Lock' and query like 'select dlock.try%'`,
          (rows) => rows.length === 1
        ))
        yield* other`select dlock.release_1(array[${late.key}], array[${late.owner}],
          array[dlock.micros_1(clock_timestamp()) + 60000000])`
        return attempted
      }))
      assert.notStrictEqual((yield* Fiber.join(stopped))[0]?.code, 1)
      assert.deepStrictEqual(yield* backend.inspect(late.key), { holder: Option.none(), waiting: [] })
    }))

  it.effect("a renewal is for the ttl that the request has by now", () =>
    Effect.gen(function*() {
      const { make, url } = yield* Target
      const backend = yield* make(url)
      const request = { ...newRequest(freshKey()), ttl: 2000 }
      assert.strictEqual(Option.getOrThrow(yield* backend.tryAcquire(request)).ttl, 2000)
      request.ttl = 20_000
      assert.strictEqual(Option.getOrThrow(yield* persist(backend.renew(request, { fresh: true }))).ttl, 20_000)
      const { remaining = 0 } = Option.getOrThrow((yield* backend.inspect(request.key)).holder)
      assert.isTrue(remaining > 2000 && remaining <= 20_000)
    }))

  it.effect("a layer that is built inside a transaction has no part in it", () =>
    Effect.gen(function*() {
      const { url } = yield* Target
      const client = yield* connect(url)
      const scope = yield* Effect.scope
      const request = newRequest(freshKey())
      const built = yield* Deferred.make<LockBackend["Service"]>()
      const inside = Effect.gen(function*() {
        const backend = yield* Scope.provide(PostgresLock.makeClient(), scope)
        assert.isTrue(Option.isSome(yield* backend.tryAcquire(request)))
        yield* Deferred.succeed(built, backend)
        return yield* Effect.fail("rolls back")
      })
      yield* Effect.flip(Effect.provideService(client.withTransaction(inside), PgClient.PgClient, client))
      const backend = yield* Deferred.await(built)
      assert.isTrue(Option.isSome((yield* backend.inspect(request.key)).holder), "the rollback took nothing")
      assert.strictEqual(yield* backend.release(request), "released")
    }))

  it.effect("what was idle for a day is swept, with its marks; what is held or was used is not", () =>
    Effect.gen(function*() {
      const { make, sql, url } = yield* Target
      const backend = yield* make(url)
      const [idle, used, held, void_] = [
        newRequest(freshKey()),
        newRequest(freshKey()),
        newRequest(freshKey()),
        "old/owner"
      ]
      const { tokens } = Option.getOrThrow(yield* backend.tryAcquire(idle))
      yield* backend.release(idle)
      yield* backend.tryAcquire(used)
      yield* backend.release(used)
      yield* backend.tryAcquire(held)
      yield* sql`update dlock.lease set expires_at = expires_at - interval '2 days' where key = ${idle.key}`
      yield* sql`insert into dlock.void values (${void_}, now() - interval '1 hour')`
      yield* sql`insert into dlock.waiter values (${idle.key}, 1, 'dead/owner', 1000, 0, 'nobody', now() - interval '2 days')`
      let after: string | null = ""
      for (let i = 0; i < 1000 && after !== null; i++) {
        const [row]: ReadonlyArray<{ readonly last: string | null }> = yield* sql<
          { readonly last: string | null }
        >`select dlock.sweep_1(${after}, 3) as last`
        after = row?.last ?? null
      }
      const left = yield* sql<{ readonly key: string }>`select key from dlock.lease where key in ${
        sql.in([idle.key, used.key, held.key])
      }`
      assert.sameMembers(left.map(({ key }) => key), [used.key, held.key])
      assert.lengthOf(yield* sql`select from dlock.void where owner = ${void_}`, 0)
      assert.lengthOf(yield* sql`select from dlock.waiter where key = ${idle.key}`, 0)
      const again = newRequest(idle.key)
      const next = Option.getOrThrow(yield* backend.tryAcquire({ ...again, spare: 63 }))
      assert.isTrue(next.tokens.first > tokens.first, "tokens go on after a sweep")
    }))

  it.effect("no grant is lost and no token goes back when the server is killed", () =>
    Effect.gen(function*() {
      const server = yield* postgres({})
      const backend = yield* PostgresLock.make({ url: server.url, commandTimeout: "10 seconds" })
      const granted: Array<{ readonly request: LockRequest, readonly token: bigint }> = []
      for (let round = 0; round < 3; round++) {
        const grants = Effect.forever(Effect.gen(function*() {
          const request = newRequest(freshKey(), "5 minutes")
          const { tokens } = yield* backend.acquire(request)
          granted.push({ request, token: tokens.first })
        }))
        const fibers = yield* Effect.replicateEffect(Effect.forkScoped(Effect.ignore(grants)), 8)
        const before = granted.length
        yield* until(Effect.sync(() => granted.length > before + 200))
        yield* server.kill
        yield* Fiber.interruptAll(fibers)
        yield* server.start
      }
      const sql = yield* connect(server.url)
      const rows = yield* sql<{ readonly key: string, readonly owner: string, readonly token: bigint }>`
        select key, owner, token from dlock.lease`
      const found = new Map(rows.map((row) => [row.key, row]))
      for (const { request, token } of granted) {
        const { owner, token: kept } = found.get(request.key) ?? {}
        assert.deepStrictEqual([owner, kept], [request.owner, token])
      }
      assert.deepStrictEqual(granted.flatMap(({ request }) => "losses" in request ? request.losses : []), [])
    }), { timeout: 90_000 })

  it.effect("a primary that dies: what a synchronous standby has stays held", () =>
    Effect.gen(function*() {
      const primary = yield* postgres({ settings: ["synchronous_standby_names=standby"] }).pipe(
        Effect.timeout("50 seconds")
      )
      const standby = yield* postgres({ primary })
      const road = yield* switchboard(primary)
      const backend = yield* PostgresLock.make({ url: at(primary.url, road.port), commandTimeout: "2 seconds" })
      const request = newRequest(freshKey())
      yield* backend.tryAcquire(request)
      yield* primary.kill
      const sql = yield* connect(standby.url)
      yield* sql`select pg_promote()`
      yield* sql.unsafe("alter system set synchronous_standby_names = ''")
      yield* sql`select pg_reload_conf()`
      yield* road.to(standby)
      assert.isTrue(Option.isNone(yield* backend.tryAcquire(newRequest(request.key))), "the key is held")
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(newRequest(freshKey()))))
      assert.isTrue(Option.isSome(yield* backend.renew(request, {})))
      assert.deepStrictEqual(request.losses, [])
    }), { timeout: 90_000 })

  it.effect(
    "a primary that dies: what an asynchronous standby has not is lost before anything is granted",
    () =>
      Effect.gen(function*() {
        const primary = yield* postgres({})
        const standby = yield* postgres({ primary })
        const road = yield* switchboard(primary)
        const backend = yield* PostgresLock.make({ url: at(primary.url, road.port), commandTimeout: "2 seconds" })
        const kept = newRequest(freshKey())
        yield* backend.tryAcquire(kept)
        const sql = yield* connect(standby.url)
        yield* until(Effect.map(sql`select from dlock.lease where key = ${kept.key}`, (rows) => rows.length === 1))
        yield* standby.kill
        const request = newRequest(freshKey())
        yield* backend.tryAcquire(request)
        yield* primary.kill
        yield* standby.start
        yield* sql`select pg_promote()`
        yield* road.to(standby)
        assert.isTrue(Option.isSome(yield* backend.tryAcquire(newRequest(freshKey()))))
        assert.deepStrictEqual([kept.losses, request.losses], [[], ["taken"]])
      }),
    { timeout: 90_000 }
  )

  it.effect("a server that has nothing of the one before ends what is held", () =>
    Effect.gen(function*() {
      const { server } = yield* Target
      const other = yield* postgres({})
      const road = yield* switchboard(server)
      const backend = yield* PostgresLock.make({ url: at(server.url, road.port), commandTimeout: "2 seconds" })
      const request = newRequest(freshKey())
      yield* backend.tryAcquire(request)
      yield* PostgresLock.make({ url: other.url })
      yield* road.to(other)
      assert.isTrue(Option.isSome(yield* backend.tryAcquire(newRequest(freshKey()))))
      assert.deepStrictEqual(request.losses, ["taken"])
    }))

  it.effect(
    "a standby that takes the place of its primary, and is not promoted, grants nothing",
    () =>
      Effect.gen(function*() {
        const primary = yield* postgres({})
        const standby = yield* postgres({ primary })
        const road = yield* switchboard(primary)
        const backend = yield* PostgresLock.make({ url: at(primary.url, road.port), commandTimeout: "1 second" })
        const request = newRequest(freshKey())
        yield* backend.tryAcquire(request)
        yield* road.to(standby)
        assert.strictEqual((yield* Effect.flip(backend.tryAcquire(newRequest(freshKey())))).reason, "Unreachable")
        assert.strictEqual((yield* Effect.flip(backend.ping)).reason, "Unreachable")
        yield* road.to(primary)
        assert.isTrue(Option.isSome(yield* backend.renew(request, {})), "the next session finds the primary")
      }),
    { timeout: 90_000 }
  )
})
