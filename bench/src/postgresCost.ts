/**
 * What a pair on PostgreSQL leaves behind: bytes of the write-ahead log, and rows that a vacuum has to take away.
 */
import { PgConnection } from "@effect/sql-pg"
import { Effect, Exit, Redacted, Scope } from "effect"
import type { Entry, Site } from "./Contender.ts"

export interface PostgresCost {
  readonly name: string
  readonly walBytes: number
  readonly deadRows: number
  /** Of the updates, those that touched no index. */
  readonly hotShare: number
}

const pairs = 50
const times = 20

const question = `select pg_current_wal_lsn() - '0/0'::pg_lsn as wal, sum(n_tup_upd), sum(n_tup_del), sum(n_tup_hot_upd)
  from pg_stat_user_tables`

export const measure = async (entries: ReadonlyArray<Entry>, site: Site): Promise<ReadonlyArray<PostgresCost>> => {
  const [host = "", port] = (site.addrs[0] ?? "").split(":")
  const scope = Scope.makeUnsafe()
  const login = { username: "app", password: Redacted.make("secret"), database: "postgres" }
  const connection = await Effect.runPromise(
    Scope.provide(PgConnection.make({ ...login, host, port: Number(port) }), scope)
  )
  const read = async () => {
    const [row] = await Effect.runPromise(connection.queryValues(question))
    const [wal = 0, updated = 0, deleted = 0, hot = 0] = (row ?? []).map(Number)
    return { wal, updated, deleted, hot }
  }
  const rows: Array<PostgresCost> = []
  for (const { make, name } of entries) {
    const keys = Array.from({ length: pairs }, (_, i) => `cost-${name}-${i}`)
    // A connection tells its statistics when it ends; before that, seconds late.
    const run = async (amount: number) => {
      const contender = await make(site)
      for (let i = 0; i < amount; i++) await contender.sequence(keys)
      await contender.close()
      await Effect.runPromise(Effect.sleep("500 millis"))
    }
    await run(2)
    const before = await read()
    await run(times)
    const after = await read()
    const updated = after.updated - before.updated
    rows.push({
      name,
      walBytes: (after.wal - before.wal) / (pairs * times),
      deadRows: (updated + after.deleted - before.deleted) / (pairs * times),
      hotShare: (after.hot - before.hot) / updated
    })
  }
  await Effect.runPromise(Scope.close(scope, Exit.void))
  return rows
}
