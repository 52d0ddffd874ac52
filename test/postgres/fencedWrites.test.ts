/**
 * Writers that are frozen for longer than their ttl, again and again: no fenced write is out of order.
 */
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import { bundled } from "../harness/Bundle.ts"
import { freshKey, until } from "../requests.ts"
import { layerOwn, Target } from "./support.ts"

/** The process that holds the key, by the label of its owner. */
const holderOf = (key: string) =>
  Effect.flatMap(Target, ({ sql }) =>
    Effect.map(
      sql<{ readonly owner: string | null }>`select owner from dlock.lease where key = ${key}`,
      ([row]) => Number(/:(\d+)\//.exec(row?.owner ?? "")?.[1])
    ))

/** Stops the holder until another process was granted the key; then it goes on with what it began. */
const freezeHolder = Effect.fnUntraced(function*(key: string, pids: ReadonlySet<number>) {
  const pid = yield* holderOf(key)
  if (!pids.has(pid)) return yield* Effect.sleep("10 millis")
  yield* Effect.sync(() => process.kill(pid, "SIGSTOP"))
  yield* Effect.timeoutOption(
    until(Effect.map(holderOf(key), (holder) => pids.has(holder) && holder !== pid)),
    "4 seconds"
  )
  yield* Effect.sync(() => process.kill(pid, "SIGCONT"))
  yield* Effect.sleep("200 millis")
})

/** Four writers, of which one after the other is frozen; answers what was counted. */
const run = Effect.fnUntraced(function*(freezes: number) {
  const { sql, url } = yield* Target
  yield* sql`create table if not exists counter (n integer not null)`
  yield* sql`create table if not exists counted (at bigserial, n integer not null, token bigint not null)`
  yield* sql`create table if not exists refused (at bigserial)`
  yield* sql`truncate counter, counted, refused`
  yield* sql`insert into counter values (0)`
  const key = freshKey()
  yield* Effect.scoped(Effect.gen(function*() {
    const children = yield* Effect.replicateEffect(
      Effect.acquireRelease(
        Effect.sync(() => ChildProcess.spawn(process.execPath, [bundled("writer"), url, key], { stdio: "ignore" })),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      ),
      4
    )
    const pids = new Set(children.map(({ pid }) => Number(pid)))
    const counted = Effect.map(sql`select 1 from counted`, (rows) => rows.length)
    yield* until(Effect.map(counted, (n) => n > 10))
    yield* Effect.replicateEffect(freezeHolder(key, pids), freezes)
    const before = yield* counted
    yield* until(Effect.map(counted, (n) => n > before + 10))
  }))
  // What the killed processes had begun ends on the server.
  yield* until(Effect.map(
    sql`select from pg_stat_activity where backend_type = 'client backend' and state <> 'idle' and pid <> pg_backend_pid()`,
    (rows) => rows.length === 0
  ))
  const rows = yield* sql<
    { readonly n: number, readonly token: bigint }
  >`select n, token from counted order by n, token`
  const refused = yield* sql`select 1 from refused`
  return { rows, refusals: refused.length, lostUpdates: rows.length - new Set(rows.map(({ n }) => n)).size }
})

layer(layerOwn, { excludeTestServices: true, timeout: "1 minute" })("postgres: fenced writes", (it) => {
  it.effect("of frozen processes are never out of order, and never undo each other", () =>
    Effect.gen(function*() {
      const { lostUpdates, refusals, rows } = yield* run(12)
      assert.isAbove(refusals, 0, "writers were frozen under the lock")
      assert.strictEqual(lostUpdates, 0, "no update is lost")
      assert.deepStrictEqual(rows.map(({ n }) => n), rows.map((_, i) => i + 1), "each counts from the one before")
      const tokens = rows.map(({ token }) => token)
      assert.deepStrictEqual(
        tokens,
        tokens.toSorted((a, b) => a < b ? -1 : a > b ? 1 : 0),
        "tokens grow with the writes"
      )
    }), { timeout: 180_000 })
})
