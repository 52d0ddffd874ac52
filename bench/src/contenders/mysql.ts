/**
 * MySQL and MariaDB: GET_LOCK by hand, and dlock.
 */
import { MysqlLock } from "@dlock/mysql"
import { Redacted } from "effect"
import { createPool, type Pool } from "mysql2/promise"
import { type Contender, dlock, type Entry, type LayerOf, promising, type Release, type Site } from "../Contender.ts"

const login = { user: "app", password: "secret", database: "locks" }

const poolOf = ({ addrs: [addr = ""] }: Site, connectionLimit: number): Pool => {
  const [host = "", port] = addr.split(":")
  return createPool({ host, port: Number(port), ...login, connectionLimit })
}

/** GET_LOCK without waiting and RELEASE_LOCK on one connection. */
const floor = async (site: Site): Promise<Contender> => {
  const pool = poolOf(site, 1)
  const connection = await pool.getConnection()
  return promising({
    pair: async (key) => {
      await connection.query("SELECT GET_LOCK(?, 0)", [key])
      await connection.query("SELECT RELEASE_LOCK(?)", [key])
    },
    hold: async (key): Promise<Release> => {
      await connection.query("SELECT GET_LOCK(?, 0)", [key])
      return async () => {
        await connection.query("SELECT RELEASE_LOCK(?)", [key])
      }
    },
    close: async () => {
      connection.release()
      await pool.end()
    }
  })
}

/** The recipe of those that wait: a connection for each that waits or holds. */
const perWaiter = (site: Site): Contender => {
  const pool = poolOf(site, 300)
  const run = async (key: string, work?: () => Promise<void>) => {
    const connection = await pool.getConnection()
    await connection.query("SELECT GET_LOCK(?, 60)", [key])
    if (work !== undefined) await work()
    await connection.query("SELECT RELEASE_LOCK(?)", [key])
    connection.release()
  }
  return promising({ pair: run, run, close: () => pool.end() })
}

export const mysqlLayer: LayerOf = ({ addrs: [addr = ""] }) => {
  const [host = "", port] = addr.split(":")
  const { database, password, user } = login
  return MysqlLock.layer({
    host,
    port: Number(port),
    username: user,
    password: Redacted.make(password),
    database,
    connectionLimit: 100
  })
}

export const mysql: ReadonlyArray<Entry> = [
  { name: "bare GET_LOCK", kind: "floor", make: floor },
  { name: "dlock", kind: "dlock", make: (site) => dlock(mysqlLayer(site)) },
  { name: "GET_LOCK on a pool", kind: "peer", make: perWaiter }
]
