/**
 * What a lock costs the server, counted.
 */
import { Lock } from "@dlock/core"
import { PostgresLock } from "@dlock/postgres"
import { assert, layer } from "@effect/vitest"
import { Console, Context, Effect, Layer } from "effect"
import { freshKey, until } from "../requests.ts"
import { at, layerOwn, switchboard, Target } from "./support.ts"

/** What the sessions that have ended did to the tables, and the bytes of the log. */
const counts = Effect.gen(function*() {
  const { sql } = yield* Target
  const [row] = yield* sql<{
    readonly wal: number
    readonly writes: number
    readonly cold: number
    readonly dead: number
  }>`
    select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as wal,
      sum(n_tup_ins + n_tup_upd + n_tup_del)::int as writes,
      sum(n_tup_ins + n_tup_upd - n_tup_hot_upd)::int as cold,
      sum(n_dead_tup)::int as dead
    from pg_stat_user_tables where schemaname = 'dlock'`
  return row ?? { wal: 0, writes: 0, cold: 0, dead: 0 }
})

/** Two processes with locks, and how often they sent something. */
const twoLocks = Effect.gen(function*() {
  const { server, url } = yield* Target
  const board = yield* switchboard(server)
  const make = Effect.map(Layer.build(PostgresLock.layer({ url: at(url, board.port) })), Context.get(Lock))
  return { one: yield* make, other: yield* make, requests: board.requests }
})

/** What one of so many costs, after as many that are not counted. No full pages: there is no checkpoint meanwhile. */
const costOf = Effect.fnUntraced(function*<E>(
  name: string,
  times: number,
  run: (locks: Effect.Success<typeof twoLocks>, times: number) => Effect.Effect<unknown, E>
) {
  const { sql } = yield* Target
  yield* Effect.scoped(Effect.flatMap(twoLocks, (locks) => run(locks, 20)))
  yield* sql`checkpoint`
  yield* Effect.scoped(Effect.flatMap(twoLocks, (locks) => run(locks, 20)))
  // A session tells what it did when it ends.
  yield* settled
  const before = yield* counts
  const sent = yield* Effect.scoped(Effect.gen(function*() {
    const locks = yield* twoLocks
    const first = yield* locks.requests
    yield* run(locks, times)
    return (yield* locks.requests) - first
  }))
  yield* settled
  const after = yield* counts
  const cost = {
    requests: sent / times,
    wal: (after.wal - before.wal) / times,
    writes: (after.writes - before.writes) / times,
    cold: (after.cold - before.cold) / times,
    dead: (after.dead - before.dead) / times
  }
  yield* Console.log(`${name}: ${JSON.stringify(cost)}`)
  return cost
})

const settled = Effect.flatMap(Target, ({ sql }) =>
  until(Effect.map(
    sql`select from pg_stat_activity where application_name like 'dlock%'`,
    (sessions) => sessions.length === 0
  )))

layer(layerOwn, { excludeTestServices: true, timeout: "2 minutes" })("postgres: what a lock costs", (it) => {
  it.effect("an uncontended pair is two requests and two updates within their page", () =>
    Effect.gen(function*() {
      const key = freshKey()
      const cost = yield* costOf("a pair", 500, ({ one }, times) =>
        Effect.replicateEffect(one.withLock(key, Effect.void), times))
      assert.closeTo(cost.requests, 2, 0.05)
      assert.closeTo(cost.writes, 2, 0.05)
      assert.isBelow(cost.cold, 0.05)
      assert.isBelow(cost.wal, 600, "bytes of the log")
      assert.isBelow(cost.dead, 1, "dead rows are pruned by the next update of their page")
    }), { timeout: 120_000 })

  it.effect("a hand-over between two processes", () =>
    Effect.gen(function*() {
      const key = freshKey()
      const cost = yield* costOf("a hand-over", 500, ({ one, other }, times) =>
        Effect.forEach([one, other], (lock) =>
          Effect.replicateEffect(lock.withLock(key, Effect.sleep("1 millis")), times / 2), {
          concurrency: "unbounded"
        }))
      assert.isBelow(cost.requests, 5)
      assert.isBelow(cost.wal, 3000, "bytes of the log")
    }), { timeout: 120_000 })

  it.effect("a thousand renewals at once are ten requests", () =>
    Effect.gen(function*() {
      const { one, requests } = yield* twoLocks
      const leases = yield* Effect.forEach(Array.from({ length: 1000 }), () => one.acquire(freshKey()), {
        concurrency: "unbounded"
      })
      const before = [yield* requests, (yield* counts).wal] as const
      yield* Effect.forEach(leases, (lease) => lease.renew, { concurrency: "unbounded", discard: true })
      const [sent, wal] = [(yield* requests) - before[0], (yield* counts).wal - before[1]]
      yield* Console.log(`a renewal: ${JSON.stringify({ requests: sent / 1000, wal: wal / 1000 })}`)
      // And what the listener asks for by itself.
      assert.isAtMost(sent, 13)
    }), { timeout: 120_000 })
})
