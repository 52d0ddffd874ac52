/**
 * The edge to the driver: the only file that meets its callbacks.
 */
import type { Tls } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Mysql from "mysql2"
import type { Pool as PromisePool } from "mysql2/promise"
import * as Net from "node:net"
import { closed, ended, fromDriver, type MysqlError, poolFull, senseless } from "./errors.ts"

/** What the server answered to one statement: its rows as text. */
export interface Answer {
  readonly rows: ReadonlyArray<ReadonlyArray<string | null>>
}

type OnAnswer = (exit: Exit.Exit<Answer, MysqlError>) => void

/** One connection, seen as bare as possible. It answers in the order of asking. */
export interface Wire {
  /** The session's number in the server's greeting. */
  readonly threadId: number
  /** `onAnswer` is called at most once, and not at all after `destroy`. */
  readonly send: (sql: string, onAnswer: OnAnswer) => void
  /** Called once when the other side, or the network, ended the connection; never in the same step. */
  readonly onClose: (listener: (error: MysqlError) => void) => void
  /** Sends `COM_QUIT`; completes when it was sent. */
  readonly quit: Effect.Effect<void>
  readonly destroy: () => void
}

/** What is known of a connection that is being made. */
export interface Attempt {
  /** It has to wait for other users of the pool, or had to; if it is late, that says nothing about the server. */
  isQueued: boolean
}

/** Where connections come from. */
export interface Client {
  /** Interruptible: a connection that comes too late is closed or goes back at once. */
  readonly connect: (attempt: Attempt) => Effect.Effect<Wire, MysqlError>
  /** Something that was asked of the pool has to wait for another user of it. */
  readonly isFull: () => boolean
}

/** What to connect to. */
export interface Target {
  readonly address: { readonly host: string, readonly port: number } | { readonly path: string }
  readonly username: string | undefined
  readonly database: string | undefined
  /** Evaluated for each connection, because passwords expire and certificates are replaced. */
  readonly password: Effect.Effect<Redacted.Redacted | undefined, MysqlError>
  readonly tls: Effect.Effect<Redacted.Redacted<Tls.Material> | undefined, MysqlError>
}

const noop = () => {}

/** Text whatever the connection's character set, `typeCast` and `bigNumberStrings` are. */
const cell = (value: unknown): string | null | undefined => {
  if (value === null || typeof value === "string") {
    return value
  }
  if (typeof value === "number" || typeof value === "bigint") {
    return String(value)
  }
  return Buffer.isBuffer(value) ? value.toString("utf8") : undefined
}

const decode = (result: unknown): Exit.Exit<Answer, MysqlError> => {
  const rows: Array<Array<string | null>> = []
  for (const row of Array.isArray(result) ? result : []) {
    if (!Array.isArray(row)) {
      return Exit.fail(senseless("the driver gave a row that is no array"))
    }
    const cells = row.map(cell)
    if (!cells.every((value) => value !== undefined)) {
      return Exit.fail(senseless("the server gave no text"))
    }
    rows.push(cells)
  }
  return Exit.succeed({ rows })
}

const socketOf = (connection: Mysql.Connection): Net.Socket | undefined =>
  "stream" in connection && connection.stream instanceof Net.Socket ? connection.stream : undefined

/** The driver ends its half of the connection and waits for the server to end the other; over a dead network it waits for ever. */
const destroy = (connection: Mysql.Connection): void => {
  connection.destroy()
  socketOf(connection)?.destroy()
}

const wire = (connection: Mysql.Connection, quit: Effect.Effect<void>): Wire => {
  let failure: MysqlError | undefined
  let listener: (error: MysqlError) => void = noop
  const onEnd = (error: MysqlError) => {
    if (failure === undefined) {
      failure = error
      listener(error)
    }
  }
  // The listener stays for good: a socket that fails after it was given up must not end the process.
  connection.on("error", (error) => onEnd(fromDriver(error)))
  connection.on("end", () => onEnd(ended()))
  return {
    threadId: connection.threadId,
    send: (sql, onAnswer) => {
      connection.query({ sql, rowsAsArray: true, typeCast: true, nestTables: false }, (error: unknown, result) => {
        if (!error) {
          return onAnswer(decode(result))
        }
        // The driver reports an end that a statement learns of to the statement only.
        const refusal = fromDriver(error)
        if (Predicate.hasProperty(error, "fatal") && error.fatal === true) {
          onEnd(refusal)
        }
        onAnswer(Exit.fail(refusal))
      })
    },
    onClose: (f) => {
      listener = f
      const ended = failure
      if (ended !== undefined) {
        queueMicrotask(() => f(ended))
      }
    },
    quit,
    destroy: () => {
      failure ??= closed("closed by the program")
      destroy(connection)
    }
  }
}

/** A silent connection is kept open by the firewalls on the way: a waiting session may say nothing for hours. */
const keepAliveDelay = 10_000

const connectTo = (address: Target["address"]): Net.Socket => {
  const options: Net.NetConnectOpts = {
    ...address,
    keepAlive: true,
    keepAliveInitialDelay: keepAliveDelay,
    noDelay: true
  }
  return Net.connect(options)
}

/**
 * The name that the server's certificate has to be for; the driver takes its `host` for nothing else. For an address it
 * checks "localhost" instead, unless there is a dot after it, which Node's check does not mind.
 */
const nameIn = (host: string): string => Net.isIP(host) === 0 ? host : `${host}.`

const open = (
  { address, database, username }: Target,
  password: Redacted.Redacted | undefined,
  tls: Redacted.Redacted<Tls.Material> | undefined
): Effect.Effect<Wire, MysqlError> =>
  Effect.callback<Wire, MysqlError>((resume) => {
    const { servername, ...certificates } = tls === undefined ? {} : Redacted.value(tls)
    const connection = Mysql.createConnection({
      stream: () => connectTo(address),
      host: servername ?? ("host" in address ? nameIn(address.host) : "localhost"),
      ...(username === undefined ? {} : { user: username }),
      ...(password === undefined ? {} : { password: Redacted.value(password) }),
      ...(database === undefined ? {} : { database }),
      ...(tls === undefined ? {} : { ssl: { ...certificates, rejectUnauthorized: true, verifyIdentity: true } }),
      rowsAsArray: true,
      // The caller has a time limit of its own.
      connectTimeout: 0
    })
    connection.on("error", noop)
    connection.connect((error) => {
      if (error) {
        destroy(connection)
        resume(Effect.fail(fromDriver(error)))
      } else {
        const quit = Effect.callback<void>((resume) => {
          connection.end(() => resume(Effect.void))
        })
        resume(Effect.succeed(wire(connection, quit)))
      }
    })
    return Effect.sync(() => destroy(connection))
  })

/** Connections of our own. */
export const fromTarget = (target: Target): Client => ({
  connect: () =>
    Effect.flatMap(
      Effect.all([target.password, target.tls]),
      ([password, tls]) => open(target, password, tls)
    ),
  isFull: () => false
})

type OnConnection = (error: unknown, connection: Mysql.PoolConnection) => void

/** What was asked of a pool. Nothing leaves the pool's queue, so the next attempt takes over what no attempt waits for. */
interface Ticket {
  onConnection: OnConnection | undefined
}

/** What the driver says without a code when no connection is free, by the pool's settings. */
const isPoolFull = (error: unknown): boolean =>
  error instanceof Error && ["No connections available.", "Queue limit reached."].includes(error.message)

const toRefusal = (error: unknown): MysqlError =>
  isPoolFull(error) ? poolFull("every connection of the pool is in use") : fromDriver(error)

/** Resets a connection of a pool: it may have a transaction or locks of the application. */
const reset = (connection: Mysql.PoolConnection, onReset: (exit: Exit.Exit<Wire, MysqlError>) => void): void => {
  socketOf(connection)?.setKeepAlive(true, keepAliveDelay)
  connection.reset((error) => {
    if (error) {
      connection.destroy()
      onReset(Exit.fail(fromDriver(error)))
    } else {
      onReset(Exit.succeed(wire(connection, Effect.sync(() => connection.destroy()))))
    }
  })
}

/**
 * Connections out of a pool of the caller's. None of them goes back: a session that carried locks has other settings than
 * the pool's, so it is closed, and the pool opens a fresh one when it needs one.
 */
export const fromPool = (given: Mysql.Pool | PromisePool): Client => {
  const pool = "pool" in given ? given.pool : given
  const queued = new Set<Ticket>()
  const left = new Set<Ticket>()

  const ask = (onConnection: OnConnection): Ticket => {
    const ticket: Ticket = { onConnection }
    const onQueued = () => {
      queued.add(ticket)
    }
    pool.once("enqueue", onQueued)
    pool.getConnection((error, connection) => {
      queued.delete(ticket)
      left.delete(ticket)
      if (ticket.onConnection !== undefined) {
        ticket.onConnection(error, connection)
      } else if (!error) {
        connection.release()
      }
    })
    pool.off("enqueue", onQueued)
    return ticket
  }

  return {
    isFull: () => queued.size > 0,
    connect: (attempt) =>
      Effect.callback<Wire, MysqlError>((resume) => {
        let taken: Mysql.PoolConnection | undefined
        const onConnection: OnConnection = (error, connection) => {
          if (error) {
            return resume(Effect.fail(toRefusal(error)))
          }
          taken = connection
          reset(connection, resume)
        }
        const [ticket = ask(onConnection)] = left
        left.delete(ticket)
        ticket.onConnection = onConnection
        attempt.isQueued ||= queued.has(ticket)
        return Effect.sync(() => {
          ticket.onConnection = undefined
          if (queued.has(ticket)) {
            left.add(ticket)
          }
          if (taken !== undefined) {
            destroy(taken)
          }
        })
      })
  }
}
