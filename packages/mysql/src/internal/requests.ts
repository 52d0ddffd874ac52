/**
 * The text of what is asked. Names come from `names.ts` and need no escaping. Each expression is a text or NULL.
 */

export interface Expression {
  /** `again`: it may have been evaluated already, because it shared a statement that failed. */
  readonly text: (again: boolean) => string
}

/** An expression that may be evaluated once more without harm. */
const harmless = (text: string): Expression => ({ text: () => text })

/** A year: longer than any wait, and a whole number that both servers take (MariaDB takes no negative one). */
const forever = 31_536_000

/**
 * `UUID_SHORT()` and, when more tokens are wanted, a second one after so many more calls of it: every token between the
 * two lies above all that the server gave before, and below all that it will give. It does not fit a JavaScript number.
 */
export const uuidTokens = (spare: number): string =>
  spare === 0
    ? "CAST(UUID_SHORT() AS CHAR)"
    : `CONCAT(UUID_SHORT(), IF(BENCHMARK(${spare - 1}, UUID_SHORT()), '', '-'), UUID_SHORT())`

/** For tokens that come from a table. */
export const noToken = "'0'"

/** What a session says of a lock that it has. Only a session that is not shared with others says the same id twice. */
export const isOurs = (name: string, session = "CONNECTION_ID()"): string => `IS_USED_LOCK('${name}') <=> ${session}`

/**
 * Takes the lock and the token if the lock is free. GET_LOCK counts, so a session that may have the lock already must
 * not simply ask again. `IF` evaluates the token after the grant; a column of its own would be evaluated in any order.
 */
export const take = (name: string, token: () => string): Expression => {
  const free = `GET_LOCK('${name}', 0) = 1`
  return { text: (again) => `IF(${again ? `${isOurs(name)} OR ${free}` : free}, ${token()}, NULL)` }
}

/** Stands in the server's line until the lock is ours, then takes the token. To be asked alone. */
export const wait = (name: string, token: string): Expression =>
  harmless(`IF(GET_LOCK('${name}', ${forever}) = 1, ${token}, NULL)`)

/** '1' when it was ours: no other session's lock is released. The second of two says that it was not. */
export const release = (name: string): Expression => harmless(`RELEASE_LOCK('${name}')`)

/** '1' when it is ours. */
export const owns = (name: string): Expression => harmless(isOurs(name))

/** New tokens for a lock that we have; NULL when we do not. */
export const more = (name: string, token: string): Expression => harmless(`IF(${isOurs(name)}, ${token}, NULL)`)

/** The session that answers, and the value of each of the variables. */
export const state = (variables: ReadonlyArray<string>): Expression =>
  harmless(`CONCAT_WS(',', ${["CONNECTION_ID()", ...variables.map((variable) => `@@global.${variable}`)].join(", ")})`)

/**
 * For how many seconds the server has been running. `UUID_SHORT()` is made of the server's id, the second of its start
 * and a counter, and 16.7 million calls of it look like one second.
 */
export const uptime = harmless(
  "CAST(UNIX_TIMESTAMP() AS SIGNED) - CAST(UUID_SHORT() >> 24 & 4294967295 AS SIGNED)"
)

/** The session that holds a lock, if any, and how many wait for it as far as our user may see. */
export const inspect = (name: string): Expression =>
  harmless(
    `CONCAT_WS(',', (SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock' ` +
      `AND LOCATE('GET_LOCK(''${name}'',', info) > 0), IS_USED_LOCK('${name}'))`
  )

/** What the server has to be able to do: two locks in one session, of which one is released. */
export const proof = (unique: string): ReadonlyArray<Expression> => {
  const [a, b] = [`dlock:a:${unique}`, `dlock:b:${unique}`]
  return [
    harmless(`GET_LOCK('${a}', 0)`),
    harmless(`GET_LOCK('${b}', 0)`),
    owns(a),
    release(b),
    owns(a),
    release(a),
    harmless(`IS_USED_LOCK('${a}') IS NULL`)
  ]
}

/** One row for each. Without DISTINCT the server evaluates each exactly once, in this order. */
export const select = (expressions: ReadonlyArray<string>): string =>
  `SELECT ${expressions[0] ?? "NULL"} AS a${expressions.slice(1).map((e) => ` UNION ALL SELECT ${e}`).join("")}`

export const kill = (id: string): string => `KILL ${id}`

/** Before anything is read: settings of the server that would change what statements mean, or cut their rows short. */
export const sane =
  "SET SESSION autocommit = 1, sql_mode = '', sql_big_selects = 1, sql_select_limit = 18446744073709551615"

/** Server-wide settings, as far as the server has them. */
export const variables = (names: ReadonlyArray<string>): string =>
  `SHOW GLOBAL VARIABLES WHERE Variable_name IN (${names.map((name) => `'${name}'`).join(", ")})`

/** The time after which the server ends the session when it is idle; and no limit for statements, which may wait. */
export const setUp = (waitTimeout: number, statementLimit: string | undefined): string =>
  `SET SESSION wait_timeout = ${waitTimeout}${statementLimit === undefined ? "" : `, ${statementLimit} = 0`}`
