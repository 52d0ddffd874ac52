/**
 * The text of what is asked. Names come from `MysqlName` and need no escaping.
 *
 * The expressions may be evaluated again without harm, so several of them can share a statement that failed for one
 * of them. Each is a text or NULL.
 */

/** A year: longer than any wait, and a whole number that both servers take (MariaDB takes no negative one). */
const forever = 31_536_000

/** `UUID_SHORT()` does not fit a JavaScript number. */
export const uuidToken = "CAST(UUID_SHORT() AS CHAR)"

/** For tokens that come from a table. */
export const noToken = "'0'"

/**
 * Takes the lock and the token if the lock is free. GET_LOCK counts, so a session that has the lock already must not
 * ask again. `IF` evaluates the token after the grant; a column of its own would be evaluated in any order.
 */
export const take = (name: string, token: string): string =>
  `IF(IS_USED_LOCK('${name}') = CONNECTION_ID() OR GET_LOCK('${name}', 0) = 1, ${token}, NULL)`

/** Stands in the server's line until the lock is ours, then takes the token. */
export const wait = (name: string, token: string): string => `IF(GET_LOCK('${name}', ${forever}) = 1, ${token}, NULL)`

/** '1' when it was ours. */
export const release = (name: string): string =>
  `CAST(IF(IS_USED_LOCK('${name}') = CONNECTION_ID(), RELEASE_LOCK('${name}'), 0) AS CHAR)`

/** '1' when it is ours. */
export const owns = (name: string): string => `CAST(IS_USED_LOCK('${name}') <=> CONNECTION_ID() AS CHAR)`

/** The session that answers. The greeting of the server has only 32 bits of it. */
export const session = "CAST(CONNECTION_ID() & 4294967295 AS CHAR)"

/** Which server this is and since when it runs: UUID_SHORT is made of the server's id, its start and a counter. */
export const incarnation = "CAST(UUID_SHORT() >> 24 AS CHAR)"

/** '1' when the second in which the server started is over: until then, another start would count from the same number. */
export const grown = "CAST((UUID_SHORT() >> 24 & 4294967295) < UNIX_TIMESTAMP() AS CHAR)"

export const version = "VERSION()"

/** One row for each. Without DISTINCT the server evaluates each exactly once. */
export const select = (expressions: ReadonlyArray<string>): string =>
  `SELECT ${expressions[0] ?? "NULL"} AS a${expressions.slice(1).map((e) => ` UNION ALL SELECT ${e}`).join("")}`

export const killQuery = (id: number): string => `KILL QUERY ${id}`
