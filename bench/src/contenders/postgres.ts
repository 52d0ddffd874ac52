/**
 * PostgreSQL: two updates of a row by hand, and dlock.
 */
import { PostgresLock } from "@dlock/postgres"
import { PgConnection } from "@effect/sql-pg"
import { Effect, Exit, Redacted, Scope } from "effect"
import { type Contender, dlock, type Entry, type LayerOf, promising, type Release, type Site } from "../Contender.ts"
import { advisory } from "./advisoryLock.ts"

const login = { username: "app", password: Redacted.make("secret"), database: "postgres" }

const optionsOf = ({ addrs: [addr = ""] }: Site) => {
  const [host = "", port] = addr.split(":")
  return { ...login, host, port: Number(port) }
}

/** A row is written when the key is taken and when it is released, each with a commit of its own. */
const floor = async (site: Site): Promise<Contender> => {
  const scope = Scope.makeUnsafe()
  const connection = await Effect.runPromise(
    Scope.provide(PgConnection.make({ ...optionsOf(site), multiplex: true }), scope)
  )
  const query = (text: string, params: ReadonlyArray<unknown>) =>
    Effect.runPromise(connection.queryValues(text, params))
  await query("create table if not exists bare (key text primary key, owner text) with (fillfactor = 50)", [])
  const known = new Set<string>()
  const take = async (key: string): Promise<void> => {
    if (!known.has(key)) await query("insert into bare values ($1) on conflict do nothing", [key])
    known.add(key)
    await query("update bare set owner = 'me' where key = $1 and owner is null", [key])
  }
  const giveBack = async (key: string): Promise<void> => {
    await query("update bare set owner = null where key = $1 and owner = 'me'", [key])
  }
  return promising({
    pair: async (key) => {
      await take(key)
      await giveBack(key)
    },
    hold: async (key): Promise<Release> => {
      await take(key)
      return () => giveBack(key)
    },
    close: () => Effect.runPromise(Scope.close(scope, Exit.void))
  })
}

export const postgresLayer: LayerOf = (site) => PostgresLock.layer(optionsOf(site))

export const postgres: ReadonlyArray<Entry> = [
  { name: "two updates", kind: "floor", make: floor },
  { name: "dlock", kind: "dlock", make: (site) => dlock(postgresLayer(site)) },
  advisory
]
