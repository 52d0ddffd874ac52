/**
 * What is left in the servers after every worker has gone, and which of them leads. Each looks with a driver of its own, straight
 * at the server.
 */
import { PgConnection } from "@effect/sql-pg"
import { Effect, Redacted } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { Etcd3 } from "etcd3"
import { Redis } from "ioredis"
import * as Mysql from "mysql2/promise"
import { createRequire } from "node:module"
import type { Credentials } from "../harness/MysqlServer.ts"
import type { Postgres } from "../harness/PostgresServer.ts"
import { ask } from "../harness/Probe.ts"
import type { Server } from "../harness/Server.ts"

type Look = (keys: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string>>

/** What cannot be looked at is left. */
const orSay = <A>(look: () => Promise<A>): Effect.Effect<A, string> =>
  Effect.tryPromise({ try: look, catch: (cause) => `nothing could be seen: ${String(cause)}` })

const said = (look: Effect.Effect<ReadonlyArray<string>, string>) =>
  Effect.catch(look, (problem) => Effect.succeed([problem]))

const withRedis = <A>({ host, port }: Server, use: (redis: Redis) => Promise<A>): Effect.Effect<A, string> =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const redis = new Redis({ host, port, maxRetriesPerRequest: 1 })
      redis.on("error", () => {})
      return redis
    }),
    (redis) => orSay(() => use(redis)),
    (redis) => Effect.sync(() => redis.disconnect())
  )

const numberAfter = (words: string) => (text: string): number =>
  Number(new RegExp(`${words}\\s*(\\d+)`).exec(text)?.[1] ?? 0)

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((all, n) => all + n, 0)

/**
 * A lock's fencing token stays for an hour, a void mark for seconds, and the channel of a holder that died for forty ttls;
 * only the token that all locks have has no end.
 */
export const redis = (servers: ReadonlyArray<Server>): Look => () =>
  said(Effect.map(
    Effect.forEach(servers, (server) =>
      withRedis(server, async (redis) => {
        const left: Array<string> = []
        for (const key of await redis.keys("*")) {
          if (/^(\{\d+\})?:dlock-fence$/.test(key)) continue
          const mayStay = /:dlock-(fence$|void|holder$)/.test(key)
          if (!mayStay || await redis.pttl(key) === -1) left.push(key)
        }
        const clients = String(await redis.client("LIST")).split("\n").filter((line) =>
          / flags=[NP] /.test(line) && !/ name=sentinel-| cmd=client/.test(line)
        )
        return [...left, ...clients]
      })),
    (found) => found.flat()
  ))

/** Channels with a subscriber. */
export const redisWatched = (servers: ReadonlyArray<Server>): Effect.Effect<Record<string, number>> =>
  Effect.map(
    Effect.forEach(servers, (server) =>
      Effect.map(withRedis(server, (redis) => redis.info("stats")), numberAfter("pubsub_channels:"))),
    (counts) => ({ subscriptions: sum(counts) })
  ).pipe(Effect.orElseSucceed(() => ({})))

export const isMaster = (server: Server): Effect.Effect<boolean> =>
  ask(server, "INFO replication\r\n", /role:/).pipe(
    Effect.map((text) => text.includes("role:master")),
    Effect.orElseSucceed(() => false)
  )

const withEtcd = <A>(servers: ReadonlyArray<Server>, use: (etcd: Etcd3) => Promise<A>): Effect.Effect<A, string> =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Etcd3({ hosts: servers.map(({ addr }) => addr) })),
    (etcd) => orSay(() => use(etcd)),
    (etcd) => Effect.sync(() => etcd.close())
  )

/** Every key is on a lease, and every lease ends. */
export const etcd = (servers: ReadonlyArray<Server>): Look => () =>
  said(withEtcd(servers, async (etcd) => {
    const keys = await etcd.getAll().keys()
    const { leases } = await etcd.leaseClient.leaseLeases()
    return [...keys, ...leases.map(({ ID }) => `lease ${ID}`)]
  }))

export const etcdWatched = (servers: ReadonlyArray<Server>): Effect.Effect<Record<string, number>> =>
  Effect.map(
    Effect.forEach(servers, (server) =>
      Effect.map(
        orSay(() => fetch(`http://${server.addr}/metrics`).then((answer) => answer.text())),
        numberAfter("\\netcd_debugging_mvcc_watcher_total")
      )),
    (counts) => ({ watches: sum(counts) })
  ).pipe(Effect.orElseSucceed(() => ({})))

export const leadsEtcd = (server: Server): Effect.Effect<boolean> =>
  withEtcd([server], async (etcd) => {
    const { header, leader } = await etcd.maintenance.status()
    return header.member_id === leader
  }).pipe(
    Effect.timeoutOrElse({ duration: "500 millis", orElse: () => Effect.succeed(false) }),
    Effect.orElseSucceed(() => false)
  )

const withMysql = <A>(
  server: Server & Credentials,
  use: (connection: Mysql.Connection) => Promise<A>
): Effect.Effect<A, string> =>
  orSay(async () => {
    const { host, password, port, username } = server
    const connection = await Mysql.createConnection({ host, port, user: username, password })
    try {
      return await use(connection)
    } finally {
      connection.destroy()
    }
  })

/** A lock goes with its connection, and no connection stays. */
export const mysql = (server: Server & Credentials): Look => (keys) =>
  said(withMysql(server, async (connection) => {
    const left: Array<string> = []
    for (const key of keys) {
      const [rows] = await connection.query<Array<Mysql.RowDataPacket>>("SELECT IS_USED_LOCK(?) AS holder", [key])
      if (rows[0]?.holder !== null) left.push(key)
    }
    const [sessions] = await connection.query<Array<Mysql.RowDataPacket>>(
      "SELECT id, info FROM information_schema.processlist WHERE user = ? AND id <> CONNECTION_ID()",
      [server.username]
    )
    return [...left, ...sessions.map(({ id, info }) => `session ${id} ${info ?? ""}`)]
  }))

const withPostgres = <A>({ url }: Postgres, use: (client: PgConnection.PgConnection) => Effect.Effect<A, SqlError>) =>
  Effect.scoped(Effect.flatMap(PgConnection.make({ url: Redacted.make(url) }), use)).pipe(
    Effect.mapError((error) => `nothing could be seen: ${error.message}`)
  )

/** The row of a free key stays, and a mark for as long as it is needed. */
export const postgres = (server: Postgres): Look => (keys) =>
  said(withPostgres(server, (client) =>
    Effect.map(
      client.queryValues(
        `select key from dlock.lease where owner is not null and expires_at > clock_timestamp() and key = any($1)
        union all select 'waiter ' || owner from dlock.waiter where key = any($1) and alive_until > clock_timestamp()
        union all select application_name from pg_stat_activity where application_name like 'dlock%'`,
        [keys]
      ),
      (rows) => rows.map(([left]) => String(left))
    )))

export const postgresWatched = (server: Postgres): Effect.Effect<Record<string, number>> =>
  withPostgres(
    server,
    (client) =>
      client.queryValues("select count(*)::int from pg_stat_activity where application_name = 'dlock listener'")
  ).pipe(
    Effect.map(([row]) => ({ listeners: Number(row?.[0]) })),
    Effect.orElseSucceed(() => ({}))
  )

interface ZooKeeperDriver {
  readonly connect: () => void
  readonly close: () => void
  readonly once: (event: "connected", listener: () => void) => void
  readonly getChildren: (
    path: string,
    callback: (error: { readonly name: string } | null, names: ReadonlyArray<string>) => void
  ) => void
}

const { createClient }: {
  readonly createClient: (servers: string, options: object) => ZooKeeperDriver
} = createRequire(import.meta.url)("node-zookeeper-client")

/** Every lock node goes with its session. What is above them is removed by the clients that remain. */
export const zooKeeper = (servers: ReadonlyArray<Server>): Look => (keys) =>
  said(Effect.acquireUseRelease(
    Effect.sync(() => createClient(servers.map(({ addr }) => addr).join(","), { sessionTimeout: 5000 })),
    (driver) =>
      orSay(async () => {
        await new Promise<void>((resolve) => {
          driver.once("connected", resolve)
          driver.connect()
        })
        const left: Array<string> = []
        for (const key of keys) {
          const names = await new Promise<ReadonlyArray<string>>((resolve, reject) =>
            driver.getChildren(`/locks/${key}`, (error, names) => {
              if (error === null || error === undefined) resolve(names)
              else if (error.name === "NO_NODE") resolve([])
              else reject(new Error(error.name))
            })
          )
          left.push(...names)
        }
        return left
      }),
    (driver) => Effect.sync(() => driver.close())
  ))

export const leadsZooKeeper = (server: Server): Effect.Effect<boolean> =>
  ask(server, "srvr", /^Mode: /m).pipe(
    Effect.map((text) => text.includes("Mode: leader")),
    Effect.orElseSucceed(() => false)
  )

export const zooKeeperWatched = (servers: ReadonlyArray<Server>): Effect.Effect<Record<string, number>> =>
  Effect.map(
    Effect.forEach(servers, (server) =>
      Effect.map(ask(server, "wchs", /Total watches:\d+/), numberAfter("Total watches:"))),
    (counts) => ({ watches: sum(counts) })
  ).pipe(Effect.orElseSucceed(() => ({})))
