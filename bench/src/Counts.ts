/**
 * What the servers say that they were asked.
 */
import { PgConnection } from "@effect/sql-pg"
import { Effect, Exit, Redacted, Scope } from "effect"
import { Redis } from "ioredis"
import { createConnection, type RowDataPacket } from "mysql2/promise"
import { connect } from "node:net"
import { text } from "node:stream/consumers"
import type { Backend } from "./contenders/index.ts"
import { sum } from "./stats.ts"

/** How many commands were done since the start, by name. */
export type Counts = Record<string, number>

export interface Counter {
  /** What was asked since the last time. */
  readonly take: () => Promise<Counts>
  readonly close: () => Promise<void>
}

interface Source {
  readonly read: () => Promise<Counts>
  readonly close: () => Promise<void>
}

// What the bench itself and connecting clients ask.
const aside = /^(info|config.*|hello|client.*|auth|select|ping|cluster.*|command.*|script.*|function.*)$/

const redisSource = (addrs: ReadonlyArray<string>): Source => {
  const clients = addrs.map((addr) => new Redis(`redis://${addr}`))
  return {
    read: async () => {
      const counts: Counts = {}
      for (const client of clients) {
        const stats = await client.info("commandstats")
        for (const [, name = "", calls] of stats.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)) {
          if (!aside.test(name)) counts[name] = (counts[name] ?? 0) + Number(calls)
        }
      }
      return counts
    },
    close: async () => {
      for (const client of clients) client.disconnect()
    }
  }
}

const etcdSource = ([addr]: ReadonlyArray<string>): Source => ({
  read: async () => {
    const answer = await fetch(`http://${addr}/metrics`)
    const metrics = (await answer.text()).matchAll(
      /grpc_server_msg_received_total\{grpc_method="(\w+)",grpc_service="(\S+?)"[^}]*\} (\S+)/g
    )
    return Object.fromEntries(
      [...metrics].filter(([, , service]) => service?.startsWith("etcdserverpb")).map(([, method = "", , count]) => [
        method,
        Number(count)
      ])
    )
  },
  close: async () => {}
})

const mysqlSource = async ([addr = ""]: ReadonlyArray<string>): Promise<Source> => {
  const [host = "", port] = addr.split(":")
  const connection = await createConnection({ host, port: Number(port), user: "app", password: "secret" })
  return {
    read: async () => {
      const [rows] = await connection.query<Array<RowDataPacket>>("SHOW GLOBAL STATUS LIKE 'Questions'")
      return { questions: Number(rows[0]?.["Value"]) }
    },
    close: () => connection.end()
  }
}

/** Transactions that write: each takes a number. The server's statistics would tell of others seconds late. */
const postgresSource = async ([addr = ""]: ReadonlyArray<string>): Promise<Source> => {
  const [host = "", port] = addr.split(":")
  const scope = Scope.makeUnsafe()
  const client = await Effect.runPromise(Scope.provide(
    PgConnection.make({
      host,
      port: Number(port),
      username: "app",
      password: Redacted.make("secret"),
      database: "postgres"
    }),
    scope
  ))
  return {
    read: async () => {
      const [row] = await Effect.runPromise(
        client.queryValues("select pg_snapshot_xmax(pg_current_snapshot())::text")
      )
      return { transactions: Number(row?.[0]) }
    },
    close: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

const zookeeperSource = ([addr = ""]: ReadonlyArray<string>): Source => ({
  read: async () => {
    const [host = "", port] = addr.split(":")
    const socket = connect(Number(port), host)
    socket.write("srvr")
    return { packets: Number(/^Received: (\d+)/m.exec(await text(socket))?.[1]) }
  },
  close: async () => {}
})

const sourceOf = (backend: Backend, addrs: ReadonlyArray<string>): Source | Promise<Source> => {
  switch (backend) {
    case "redis":
    case "redlock":
      return redisSource(addrs)
    case "etcd":
      return etcdSource(addrs)
    case "mysql":
      return mysqlSource(addrs)
    case "postgres":
      return postgresSource(addrs)
    case "zookeeper":
      return zookeeperSource(addrs)
  }
}

const less = (counts: Counts, other: Counts): Counts =>
  Object.fromEntries(Object.entries(counts).map(([name, count]) => [name, count - (other[name] ?? 0)]))

export const total = (counts: Counts): number => sum(Object.values(counts))

/** Counts without what counting itself costs. */
export const counter = async (backend: Backend, addrs: ReadonlyArray<string>): Promise<Counter> => {
  const source = await sourceOf(backend, addrs)
  await source.read()
  const before = await source.read()
  let last = await source.read()
  const own = less(last, before)
  return {
    take: async () => {
      const counts = await source.read()
      const delta = less(less(counts, last), own)
      last = counts
      return Object.fromEntries(Object.entries(delta).filter(([, count]) => count > 0))
    },
    close: source.close
  }
}
