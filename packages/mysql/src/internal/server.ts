/**
 * Which server answers, and whether it can carry locks.
 */
import * as Effect from "effect/Effect"
import type { Connection } from "./connection.ts"
import { type MysqlError, unfit, unsupported } from "./errors.ts"
import * as Requests from "./requests.ts"

/** A server, as one of its sessions sees it. */
export interface Server {
  /** Differs between servers, and is the same after a restart. */
  readonly identity: string
  /** Which of the variables that say "read-only" it has. */
  readonly readOnly: ReadonlyArray<string>
  /** The variable that limits how long a statement may take, if it has one. */
  readonly statementLimit: string | undefined
  /** How many statements it executes at a time, if a pool of threads limits that. */
  readonly threads: number
}

/** What a new session says of itself and its server. */
export interface Seen {
  readonly server: Server
  /** `CONNECTION_ID()`. */
  readonly session: string
  /** For how many seconds the server has been running by its own clock, about. */
  readonly uptime: number
}

/** What a server is asked to have. */
export interface Demands {
  /** Locks on a replica exclude only programs that ask the same replica. */
  readonly allowReadOnly: boolean
  /** The table that fencing tokens come from. */
  readonly table: string | undefined
}

/** MariaDB has no `server_uuid`, and `server_uid` only in newer versions. */
const identities = ["server_uid", "server_id", "hostname", "port", "datadir"]

const readOnly = ["read_only", "super_read_only", "innodb_read_only"]

const statementLimits = ["max_execution_time", "max_statement_time"]

const others = ["server_uuid", "wsrep_on", "thread_handling", "thread_pool_max_threads", "log_bin", "binlog_format"]

const multiplexed =
  "a proxy shares sessions between clients or changes them (the session that answers is not the one that greeted), " +
  "and a lock belongs to a session"

const galera = "wsrep_on is ON: the nodes of a Galera cluster do not share their locks"

const byStatement =
  "binlog_format is STATEMENT: replicas would not count the fencing tokens of the table; set it to ROW or MIXED"

const parse = (rows: ReadonlyArray<ReadonlyArray<string | null>>): Omit<Server, "threads"> & {
  readonly of: (name: string) => string | undefined
} => {
  const values = new Map(rows.map(([name, value]) => [name?.toLowerCase(), value ?? ""]))
  const of = (name: string) => values.get(name)
  return {
    of,
    identity: of("server_uuid") ?? identities.map((name) => of(name) ?? "").join("/"),
    readOnly: readOnly.filter((name) => values.has(name)),
    statementLimit: statementLimits.find((name) => values.has(name))
  }
}

const isOff = (value: string | undefined): boolean => value === "0" || value === "OFF" || value === undefined

/** What a session says of itself and its server, out of the answer to `Requests.state`. */
export const readState = (cell: string | null): { readonly session: string, readonly isReadOnly: boolean } => {
  const [session = "", ...values] = cell?.split(",") ?? []
  return { session, isReadOnly: !values.every(isOff) }
}

export const becameReadOnly = unfit("the server is read-only; set allowReadOnly if locks on a replica are intended")

/** Which server has the locks of this layer. */
export interface Truth {
  /** The server that the latest connection led to. */
  identity: string | undefined
  /** When servers were left for another one. */
  readonly left: Map<string, number>
}

/** A fail-over is told from two servers behind one address by how soon the first one comes back. */
const comesBack = 60_000

/**
 * A connection that leads to another server means that the address was switched, so that server has the truth now. One
 * that leads back soon means that the address leads to both, and is refused.
 */
export const admit = (truth: Truth, { identity }: Server, time: number): Effect.Effect<void, MysqlError> =>
  Effect.suspend(() => {
    const { identity: before, left } = truth
    const leftAt = left.get(identity)
    if (before !== identity && leftAt !== undefined && time - leftAt < comesBack) {
      return Effect.fail(
        unfit(`the address leads to several servers (${identity} and ${before}), which share no locks`)
      )
    }
    if (before !== undefined && before !== identity) {
      left.set(before, time)
    }
    truth.identity = identity
    return Effect.void
  })

/**
 * A server that has been running for so many seconds was restarted within the age of a session, in milliseconds. Clocks
 * are set, and `uptime` is a guess, so only a server that is much younger than the session counts.
 */
export const wasRestarted = (uptime: number, age: number): boolean => uptime >= 0 && 2 * uptime + 4 < age / 1000

/** Makes a new session safe to ask, and asks what it is. Fails when it cannot carry locks. */
export const inspect = Effect.fnUntraced(function*(
  connection: Connection,
  { allowReadOnly, table }: Demands
): Effect.fn.Return<Seen, MysqlError> {
  const asked = [...identities, ...readOnly, ...statementLimits, ...others]
  connection.run(Requests.sane)
  const { of, ...server } = parse((yield* connection.run(Requests.variables(asked)).await).rows)
  if (!isOff(of("wsrep_on"))) {
    return yield* unsupported(galera)
  }
  if (table !== undefined && !isOff(of("log_bin")) && of("binlog_format") === "STATEMENT") {
    return yield* unsupported(byStatement)
  }
  if (!allowReadOnly && !server.readOnly.every((name) => isOff(of(name)))) {
    return yield* becameReadOnly
  }
  const [state, uptime] = yield* Effect.all(
    [Requests.state([]), Requests.uptime].map((expression) => connection.ask(expression)).map((ask) => ask.await)
  )
  const session = readState(state ?? null).session
  // The greeting has 32 bits of it.
  if (!/^\d+$/.test(session) || BigInt.asUintN(32, BigInt(session)) !== BigInt(connection.threadId >>> 0)) {
    return yield* unsupported(multiplexed)
  }
  return {
    server: {
      ...server,
      threads: of("thread_handling") === "pool-of-threads" ? Number(of("thread_pool_max_threads")) : Infinity
    },
    session,
    uptime: Number(uptime)
  }
})

/** Tries what locks need, in one session: what only speaks MySQL's protocol, or is too old, does it differently. */
export const prove = Effect.fnUntraced(function*(connection: Connection) {
  const asked = Requests.proof(crypto.randomUUID()).map((expression) => connection.ask(expression))
  const answers = yield* Effect.forEach(asked, (ask) => ask.await)
  if (!answers.every((answer) => answer === "1")) {
    return yield* unsupported("a session cannot hold two locks, or its locks are not those of MySQL and MariaDB")
  }
})

/**
 * Waits until a server in its first second is a second old: what UUID_SHORT gave in the second of the start, a server
 * that is started again in the same second gives again.
 */
export const grown = (connection: Connection): Effect.Effect<void, MysqlError> =>
  Effect.sleep("50 millis").pipe(
    Effect.andThen(Effect.suspend(() => connection.ask(Requests.uptime).await)),
    Effect.repeat({ until: (cell) => cell !== "0", times: 30 }),
    Effect.asVoid
  )
