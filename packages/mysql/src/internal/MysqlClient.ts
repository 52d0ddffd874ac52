/**
 * The edge to the driver: the only file that meets its callbacks.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Mysql from "mysql2"
import * as Net from "node:net"
import { closed, fromDriver, type MysqlError, notConnected, senseless } from "./MysqlError.ts"

/** What the server answered to one statement. */
export interface Answer {
  readonly rows: ReadonlyArray<ReadonlyArray<unknown>>
  readonly insertId: bigint
}

type OnAnswer = (exit: Exit.Exit<Answer, MysqlError>) => void

/** One connection, seen as bare as possible. It answers in the order of asking. */
export interface Wire {
  /** The session's number in the server's greeting. */
  readonly threadId: number
  /** `onAnswer` is called at most once, and not at all after `destroy`. */
  readonly send: (sql: string, onAnswer: OnAnswer) => void
  /** It can prepare statements. */
  readonly prepares: boolean
  /** As `send`, prepared when it comes for the first time; `value` stands for its `?`. */
  readonly execute: (sql: string, value: string, onAnswer: OnAnswer) => void
  /** Called once when the other side, or the network, ended the connection. */
  readonly onClose: (listener: (error: MysqlError) => void) => void
  /** Says goodbye; completes when it was said. */
  readonly quit: Effect.Effect<void>
  readonly destroy: () => void
}

/** Where connections come from. */
export interface Client {
  /** Interruptible: a connection that comes too late goes back at once. */
  readonly connect: Effect.Effect<Wire, MysqlError>
}

export interface ConnectOptions {
  readonly host: string
  readonly port: number
  readonly username: string | undefined
  readonly password: Redacted.Redacted | undefined
  readonly database: string | undefined
  readonly tls: boolean | Mysql.SslOptions
}

const noop = () => {}

const decode = (result: unknown): Exit.Exit<Answer, MysqlError> => {
  if (Array.isArray(result)) {
    return result.every((row) => Array.isArray(row))
      ? Exit.succeed({ rows: result, insertId: 0n })
      : Exit.fail(senseless("the driver gave rows that are no arrays"))
  }
  const insertId = typeof result === "object" && result !== null && "insertId" in result ? result.insertId : 0
  return Exit.succeed({
    rows: [],
    insertId: typeof insertId === "number" || typeof insertId === "string" ? BigInt(insertId) : 0n
  })
}

/** The driver only says goodbye, and waits for the other side to do the same; a dead network never would. */
const destroy = (connection: Mysql.Connection): void => {
  connection.destroy()
  if ("stream" in connection && connection.stream instanceof Net.Socket) {
    connection.stream.destroy()
  }
}

/** `prepares`: its options are ours, because there are none for a prepared statement. */
const wire = (connection: Mysql.Connection, quit: Effect.Effect<void>, prepares: boolean): Wire => {
  const statements = new Map<string, Mysql.PrepareStatementInfo>()
  let ended: MysqlError | undefined
  let listener: (error: MysqlError) => void = noop
  const onEnd = (error: MysqlError) => {
    if (ended === undefined) {
      ended = error
      listener(error)
    }
  }
  // The listener stays for good: a socket that fails after it was given up must not end the process.
  connection.on("error", (error) => onEnd(fromDriver(error)))
  connection.on("end", () => onEnd(notConnected("the server closed the connection")))
  const fail = (error: unknown, onAnswer: OnAnswer): void => {
    // An end that a statement learns of is not told to the connection.
    const failure = fromDriver(error)
    if (Predicate.hasProperty(error, "fatal") && error.fatal === true) {
      onEnd(failure)
    }
    onAnswer(Exit.fail(failure))
  }
  const answer = (onAnswer: OnAnswer) => (error: unknown, result: unknown): void =>
    error ? fail(error, onAnswer) : onAnswer(decode(result))
  return {
    threadId: connection.threadId,
    prepares,
    send: (sql, onAnswer) => {
      connection.query({ sql, rowsAsArray: true, typeCast: true, nestTables: false }, answer(onAnswer))
    },
    execute: (sql, value, onAnswer) => {
      const known = statements.get(sql)
      if (known !== undefined) {
        known.execute([value], answer(onAnswer))
        return
      }
      connection.prepare(sql, (error, statement) => {
        if (error) {
          return fail(error, onAnswer)
        }
        statements.set(sql, statement)
        statement.execute([value], answer(onAnswer))
      })
    },
    onClose: (f) => {
      listener = f
      if (ended !== undefined) {
        f(ended)
      }
    },
    quit,
    destroy: () => {
      ended ??= closed("closed by us")
      destroy(connection)
    }
  }
}

const ssl = (tls: boolean | Mysql.SslOptions): { readonly ssl?: Mysql.SslOptions } =>
  tls === false ? {} : { ssl: tls === true ? { rejectUnauthorized: true, verifyIdentity: true } : { ...tls } }

/** Connections of our own. */
export const fromOptions = (options: ConnectOptions): Client => ({
  connect: Effect.callback<Wire, MysqlError>((resume) => {
    const connection = Mysql.createConnection({
      host: options.host,
      port: options.port,
      ...(options.username === undefined ? {} : { user: options.username }),
      ...(options.password === undefined ? {} : { password: Redacted.value(options.password) }),
      ...(options.database === undefined ? {} : { database: options.database }),
      ...ssl(options.tls),
      rowsAsArray: true,
      // The caller has a time limit of its own.
      connectTimeout: 0,
      // A waiting session may be silent for hours; this keeps the firewalls on the way awake.
      keepAliveInitialDelay: Duration.toMillis("10 seconds")
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
        resume(Effect.succeed(wire(connection, quit, true)))
      }
    })
    return Effect.sync(() => destroy(connection))
  })
})

/**
 * Connections out of a pool of the caller's. They come back to it never: a session that carried locks has another
 * `wait_timeout`, so it is closed and the pool opens a fresh one when it needs one.
 */
export const fromPool = (pool: Mysql.Pool): Client => ({
  connect: Effect.callback<Wire, MysqlError>((resume) => {
    let wanted = true
    pool.getConnection((error, connection) => {
      if (error) {
        resume(Effect.fail(fromDriver(error)))
      } else if (wanted) {
        resume(Effect.succeed(wire(connection, Effect.sync(() => connection.destroy()), false)))
      } else {
        connection.release()
      }
    })
    return Effect.sync(() => {
      wanted = false
    })
  })
})
