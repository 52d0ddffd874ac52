/**
 * Which server answers, and whether it can carry locks.
 */
import type { LockBackendError } from "@dlock/core"
import * as Effect from "effect/Effect"
import type { Connection } from "./MysqlConnection.ts"
import { backendError, type MysqlError, senseless, toBackendError } from "./MysqlError.ts"
import * as Sql from "./MysqlSql.ts"

export interface Server {
  readonly kind: "MySQL" | "MariaDB"
  readonly version: readonly [major: number, minor: number, patch: number]
  /** Differs between servers and between two runs of one server. */
  readonly incarnation: string
}

const unsupported = (detail: string): LockBackendError => backendError("connect", "Unsupported", detail)

const isBelow = (a: Server["version"], b: Server["version"]): boolean =>
  a[0] !== b[0] ? a[0] < b[0] : a[1] !== b[1] ? a[1] < b[1] : a[2] < b[2]

/** Before these, a second GET_LOCK of a session silently gave up the first lock. */
const oldest = { MySQL: [5, 7, 5], MariaDB: [10, 0, 2] } as const

/** What answers in MySQL's protocol without being MySQL. */
const foreign = /vitess|tidb|oceanbase|singlestore|memsql|clickhouse/i

/** `VERSION()`: `9.7.4`, `8.0.36-0ubuntu0.22.04.1`, `10.11.19-MariaDB-0+deb12u1`, `5.5.5-10.4.2-MariaDB`, ... */
export const parseVersion = (text: string): Omit<Server, "incarnation"> | undefined => {
  const kind = /mariadb/i.test(text) ? "MariaDB" : "MySQL"
  // Old clients take 10.x for a broken number, so some answer with a prefix of an old version.
  const [, major, minor, patch] =
    /^(\d+)\.(\d+)\.(\d+)/.exec(kind === "MariaDB" ? text.replace(/^5\.5\.5-/, "") : text) ??
      []
  return major === undefined || minor === undefined || patch === undefined
    ? undefined
    : { kind, version: [Number(major), Number(minor), Number(patch)] }
}

/** The reason why a server of this version can carry no locks. */
export const versionProblem = (text: string): string | undefined => {
  const server = parseVersion(text)
  if (server === undefined) {
    return `its version "${text}" is unknown`
  }
  if (foreign.test(text)) {
    return `"${text}" is not MySQL or MariaDB: its sessions or its GET_LOCK are not theirs`
  }
  return isBelow(server.version, oldest[server.kind])
    ? `${server.kind} ${text} is older than ${oldest[server.kind].join(".")}: a session can hold only one lock there`
    : undefined
}

const multiplexed =
  "a proxy shares sessions between clients or changes them (the session that answers is not the one that greeted), " +
  "and a lock belongs to a session"

/** Asks the server who it is; fails when it can not carry locks. */
export const inspect = Effect.fnUntraced(function*(connection: Connection) {
  const asked = [Sql.session, Sql.version, Sql.incarnation].map((expression) => connection.ask(expression))
  const [session, version, incarnation] = yield* Effect.all(asked.map((ask) => ask.await)).pipe(
    Effect.mapError((error) => refused(error))
  )
  const problem = versionProblem(version ?? "")
  if (problem !== undefined) {
    return yield* unsupported(problem)
  }
  const server = parseVersion(version ?? "")
  if (server === undefined || incarnation === undefined || incarnation === null) {
    return yield* toBackendError("connect", senseless("no version, or no UUID_SHORT"))
  }
  if (session !== String(connection.id)) {
    return yield* unsupported(multiplexed)
  }
  const wsrep = yield* Effect.mapError(connection.run("SHOW VARIABLES LIKE 'wsrep_on'").await, refused)
  if (wsrep.rows.some((row) => row[1] === "ON" || row[1] === "1")) {
    return yield* unsupported("wsrep_on is ON: the nodes of a Galera cluster do not share their locks")
  }
  return { ...server, incarnation }
})

/**
 * Waits until a server that has just started is a second old: what UUID_SHORT gave in the second of the start, a server
 * that is started again in the same second gives again.
 */
export const grown = (connection: Connection): Effect.Effect<void, LockBackendError> =>
  Effect.suspend(() => connection.ask(Sql.grown).await).pipe(
    Effect.mapError(refused),
    Effect.filterOrElse((cell) => cell === "1", () => Effect.as(Effect.sleep("50 millis"), undefined)),
    // A clock that was set back is no reason to wait for longer.
    Effect.repeat({ until: (cell) => cell === "1", times: 30 }),
    Effect.asVoid
  )

// 1305: no such function, 1193: no such variable, 1235: not supported yet.
const refused = (error: MysqlError): LockBackendError =>
  error.errno === 1305 || error.errno === 1193 || error.errno === 1235
    ? unsupported(error.message)
    : toBackendError("connect", error)

/**
 * What a session needs to hold and await locks: the time after which the server ends it when it is idle; no limit for
 * statements, which would cut a wait short; and nothing of a server-wide setting that would bite us.
 */
export const setUp = (server: Server, waitTimeout: number): string => {
  const limit = server.kind === "MariaDB"
    ? isBelow(server.version, [10, 1, 2]) ? "" : ", max_statement_time = 0"
    : isBelow(server.version, [5, 7, 8])
    ? ""
    : ", max_execution_time = 0"
  return `SET SESSION wait_timeout = ${waitTimeout}, autocommit = 1, sql_select_limit = 18446744073709551615${limit}`
}
