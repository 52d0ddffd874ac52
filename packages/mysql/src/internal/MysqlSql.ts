/**
 * The text of what is asked. Names come from `MysqlName` and need no escaping. Each expression is a text, a small whole
 * number or NULL.
 */

export interface Expression {
  /** `again`: it may have been evaluated already, because it shared a statement that failed. */
  readonly text: (again: boolean) => string
  /** The same as a statement of its own, with a name in the place of `?`: a server need not read it more than once. */
  readonly prepared?: { readonly sql: string, readonly name: string } | undefined
}

/** One that may be evaluated once more without harm. */
const harmless = (text: string): Expression => ({ text: () => text })

/** A year: longer than any wait, and a whole number that both servers take (MariaDB takes no negative one). */
const forever = 31_536_000

/** `UUID_SHORT()` does not fit a JavaScript number. */
export const uuidToken = "CAST(UUID_SHORT() AS CHAR)"

/** For tokens that come from a table. */
export const noToken = "'0'"

/**
 * Takes the lock and the token if the lock is free. GET_LOCK counts, so a session that may have the lock already must
 * not simply ask again. `IF` evaluates the token after the grant; a column of its own would be evaluated in any order.
 */
export const take = (name: string, token: string): Expression => {
  const free = `GET_LOCK('${name}', 0) = 1`
  return {
    text: (again) => `IF(${again ? `IS_USED_LOCK('${name}') = CONNECTION_ID() OR ${free}` : free}, ${token}, NULL)`,
    prepared: { sql: `SELECT IF(GET_LOCK(?, 0) = 1, ${token}, NULL) AS a`, name }
  }
}

/**
 * Stands in the server's line until the lock is ours, then takes the token. To be asked alone; as a text, so that people
 * see in the server's list of processes who waits for what.
 */
export const wait = (name: string, token: string): Expression =>
  harmless(`IF(GET_LOCK('${name}', ${forever}) = 1, ${token}, NULL)`)

/** '1' when it was ours: no other session's lock is released. */
export const release = (name: string): Expression => ({
  text: () => `RELEASE_LOCK('${name}')`,
  prepared: { sql: "SELECT RELEASE_LOCK(?) AS a", name }
})

/** '1' when it is ours. */
export const owns = (name: string): Expression => harmless(`IS_USED_LOCK('${name}') <=> CONNECTION_ID()`)

/** The session that answers. The greeting of the server has only 32 bits of it. */
export const session = harmless("CONNECTION_ID() & 4294967295")

/** Which server this is and since when it runs: UUID_SHORT is made of the server's id, its start and a counter. */
export const incarnation = harmless("UUID_SHORT() >> 24")

/** '1' when the second in which the server started is over: until then, another start would count from the same number. */
export const grown = harmless("(UUID_SHORT() >> 24 & 4294967295) < UNIX_TIMESTAMP()")

export const version = harmless("VERSION()")

/** One row for each. Without DISTINCT the server evaluates each exactly once, in this order. */
export const select = (expressions: ReadonlyArray<string>): string =>
  `SELECT ${expressions[0] ?? "NULL"} AS a${expressions.slice(1).map((e) => ` UNION ALL SELECT ${e}`).join("")}`

export const killQuery = (id: number): string => `KILL QUERY ${id}`
