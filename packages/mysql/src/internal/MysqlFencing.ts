/**
 * Where fencing tokens come from.
 */
import * as Effect from "effect/Effect"
import type { Connection } from "./MysqlConnection.ts"
import { type MysqlError, senseless } from "./MysqlError.ts"
import * as Sql from "./MysqlSql.ts"

export interface Tokens {
  /** What the grant is asked for together with. */
  readonly expression: string
  /** The token in the answer to the grant, if it is there. */
  readonly read: (cell: string) => bigint | undefined
  /** The next token of a name, for the session that holds it. */
  readonly next: (connection: Connection, name: string) => Effect.Effect<bigint, MysqlError>
  /** Makes what is needed, once. */
  readonly prepare: (connection: Connection) => Effect.Effect<void, MysqlError>
}

const digits = /^\d+$/

/** `UUID_SHORT()`: the server's id, the second of its start, and a counter. */
export const uuid: Tokens = {
  expression: Sql.uuidToken,
  read: (cell) => digits.test(cell) ? BigInt(cell) : undefined,
  next: () => Effect.fail(senseless("the server gave a fencing token that is no number")),
  prepare: () => Effect.void
}

const identifier = /^[0-9A-Za-z_$]{1,64}(\.[0-9A-Za-z_$]{1,64})?$/

/** Why a table can not have this name. */
export const tableProblem = (table: string): string | undefined =>
  identifier.test(table)
    ? undefined
    : `fencing.table "${table}" is no table name: letters, digits, "_" and "$", with the database before a dot if need be`

/**
 * A row per name. The token is taken by a second statement: one statement that takes both would have the table open
 * while it waits in line, so that any DDL on it could deadlock with the holders.
 */
export const table = (name: string): Tokens => {
  const quoted = name.split(".").map((part) => `\`${part}\``).join(".")
  const exists = `SELECT 1 FROM ${quoted} LIMIT 0`
  const create = `CREATE TABLE IF NOT EXISTS ${quoted} (` +
    "name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY, token BIGINT UNSIGNED NOT NULL" +
    ") ENGINE = InnoDB"
  return {
    expression: Sql.noToken,
    read: () => undefined,
    next: (connection, key) =>
      connection.run(
        `INSERT INTO ${quoted} (name, token) VALUES ('${key}', LAST_INSERT_ID(1)) ` +
          "ON DUPLICATE KEY UPDATE token = LAST_INSERT_ID(token + 1)"
      ).await.pipe(
        Effect.map((answer) => answer.insertId),
        Effect.filterOrFail((token) => token > 0n, () => senseless("the server gave no fencing token"))
      ),
    // Who may use the table need not be who may create it. 1146: no such table.
    prepare: (connection) =>
      connection.run(exists).await.pipe(
        Effect.catchIf((error) => error.errno === 1146, () => connection.run(create).await),
        Effect.asVoid
      )
  }
}
