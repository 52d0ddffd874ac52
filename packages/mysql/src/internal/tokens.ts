/**
 * Where fencing tokens come from.
 */
import type { Tokens } from "@dlock/core"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Connection } from "./connection.ts"
import { closed, isDeadlock, isEnded, isNoTable, type MysqlError, senseless, stalled } from "./errors.ts"
import * as Requests from "./requests.ts"
import { type Claim, isAlive, isStale, type Session } from "./session.ts"
import { open, type Sessions } from "./sessions.ts"

/** A source of fencing tokens. */
export interface Source {
  /** What the grant is asked for together with. */
  readonly expression: (spare: number) => string
  /** The tokens in the answer to the grant, if they are there; at most so many more than one. */
  readonly read: (cell: string, spare: number) => Tokens | undefined
  /** New tokens for a request that is held, one and so many more; `undefined` when it is not held any more. */
  readonly next: (claim: Claim, spare: number) => Effect.Effect<Tokens | undefined, MysqlError>
}

const noNumber = Exit.fail(senseless("the server gave a fencing token that is no number"))

const interrupted = Exit.fail(closed("the request for fencing tokens was interrupted"))

const readUuids = (cell: string, spare: number): Tokens | undefined => {
  const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(cell) ?? []
  return first === undefined || last === undefined
    ? undefined
    : { first: BigInt(first), spare: Math.min(spare, Number(BigInt(last) - BigInt(first))) }
}

/** `UUID_SHORT()`: the server's id, the second of its start, and a counter. */
export const uuid: Source = {
  expression: Requests.uuidTokens,
  read: readUuids,
  next: (claim, spare) =>
    Effect.suspend(() => {
      const { name, session } = claim
      if (session === undefined) {
        return Effect.succeed(undefined)
      }
      return Effect.flatMap(
        session.connection.ask(Requests.more(name, Requests.uuidTokens(spare))).await,
        (cell) => {
          const tokens = cell === null ? undefined : readUuids(cell, spare)
          return cell !== null && tokens === undefined
            ? noNumber
            : Effect.succeed(tokens)
        }
      )
    })
}

/** A wish for tokens out of the table. */
interface Wish {
  readonly claim: Claim
  /** `CONNECTION_ID()` of the session that holds the lock. */
  readonly holder: string
  readonly count: number
  readonly result: Deferred.Deferred<Tokens | undefined, MysqlError>
}

interface Table {
  readonly sessions: Sessions
  /** Quoted. */
  readonly name: string
  /** Holds nothing: a table that another session locks must not delay renewals. */
  session: Session | undefined
  wishes: Array<Wish>
  serving: boolean
}

/** How many wishes share a transaction. */
const mostInOne = 128

/** `wait_timeout` of its session, in seconds. */
const idleSeconds = 60

/**
 * Counts in the table, for all wishes on behalf of one session, and reads the sums. Whether it holds the locks is asked
 * while their rows are locked: a holder that lost its lock and does not know must not get a token that is greater than
 * the next holder's.
 */
const count = (connection: Connection, table: string, holder: string, wishes: ReadonlyArray<Wish>) => {
  const holds = `IS_USED_LOCK(name) <=> ${holder}`
  const names = wishes.map(({ claim }) => `'${claim.name}'`)
  const rows = wishes.map(({ claim, count }) => `('${claim.name}', ${count})`)
  const steps = [
    "START TRANSACTION",
    `INSERT INTO ${table} (name, token) VALUES ${rows.join(", ")} ` +
    `ON DUPLICATE KEY UPDATE token = token + IF(${holds}, VALUES(token), 0)`,
    `SELECT name, CAST(token AS CHAR), ${holds} FROM ${table} WHERE name IN (${names.join(", ")})`,
    "COMMIT"
  ]
  return Effect.forEach(steps, (step) => connection.run(step).await).pipe(
    // It may be overdue, and go through later; then some numbers are skipped.
    Effect.onError(() => Effect.sync(() => connection.isStalled() || connection.run("ROLLBACK"))),
    Effect.map((answers) => new Map(answers[2]?.rows.map((row) => [row[0], row])))
  )
}

/** The tokens of a wish, out of its row; `undefined` when its session does not hold the lock. */
const readRow = (
  [, token, holds]: ReadonlyArray<string | null>,
  count: number
): Exit.Exit<Tokens | undefined, MysqlError> => {
  if (holds === "0") {
    return Exit.succeed(undefined)
  }
  // A table that the user made has the types that the user chose.
  return token !== undefined && token !== null && /^\d+$/.test(token)
    ? Exit.succeed({ first: BigInt(token) - BigInt(count) + 1n, spare: count - 1 })
    : noNumber
}

const sessionOf = (table: Table): Effect.Effect<Session, MysqlError> =>
  Effect.suspend(() => {
    const { session, sessions } = table
    if (session !== undefined && isAlive(session) && !isStale(session, sessions.timers.now())) {
      return Effect.succeed(session)
    }
    session?.connection.close(closed("it was idle for too long"))
    return Effect.gen(function*() {
      const session = yield* open(sessions, idleSeconds)
      // A lock that is not had within a second is an error of this request, and delays no other for longer.
      yield* session.connection.run("SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1").await
      table.session = session
      return session
    })
  })

const fulfil = Effect.fnUntraced(function*(table: Table, wishes: ReadonlyArray<Wish>) {
  const { connection } = yield* sessionOf(table)
  const rows = yield* count(connection, table.name, wishes[0]?.holder ?? "", wishes)
  wishes.forEach(({ claim, count, result }) => Deferred.doneUnsafe(result, readRow(rows.get(claim.name) ?? [], count)))
})

/** Fails only the wishes whose own row, or whose table, is locked. */
const fulfilAll = (table: Table, wishes: ReadonlyArray<Wish>): Effect.Effect<void> =>
  fulfil(table, wishes).pipe(
    // Two transactions that insert beside each other can be a deadlock; and a session may have ended unseen.
    Effect.retry({ times: 2, while: (error) => isDeadlock(error) || isEnded(error) }),
    Effect.catch((error) => {
      const [only] = wishes
      if (wishes.length > 1) {
        return Effect.forEach(wishes, (wish) => fulfilAll(table, [wish]), { discard: true })
      }
      return Effect.sync(() => only && Deferred.doneUnsafe(only.result, Exit.fail(error)))
    })
  )

/** What a defect or an interruption leaves unanswered fails with it, and the next ones are served. */
const answerAll = (table: Table, wishes: ReadonlyArray<Wish>): Effect.Effect<void> =>
  Effect.catchCause(fulfilAll(table, wishes), (cause) =>
    Effect.sync(() => {
      const exit = Cause.hasInterrupts(cause) ? interrupted : Exit.failCause(cause)
      wishes.forEach(({ result }) => Deferred.doneUnsafe(result, exit))
    }))

const serve = (table: Table): Effect.Effect<void> =>
  Effect.suspend(() => {
    const [first] = table.wishes
    if (first === undefined) {
      return Effect.void
    }
    const together = table.wishes.filter(({ holder }) => holder === first.holder).slice(0, mostInOne)
    table.wishes = table.wishes.filter((wish) => !together.includes(wish))
    return Effect.andThen(answerAll(table, together), serve(table))
  })

/** Serves in a moment, so that wishes that come together share a transaction. */
const startServing = (table: Table): void => {
  if (table.serving || table.wishes.length === 0) {
    return
  }
  table.serving = true
  const end = Effect.sync(() => {
    table.serving = false
    startServing(table)
  })
  table.sessions.fork(Effect.ensuring(Effect.andThen(Effect.yieldNow, serve(table)), end))
}

const quote = (table: string): string => table.split(".").map((part) => `\`${part}\``).join(".")

/** A row per name in the table. */
const fromTable = (table: Table): Source => ({
  expression: () => Requests.noToken,
  read: () => undefined,
  next: (claim, spare) =>
    Effect.suspend(() => {
      const { session } = claim
      if (session === undefined) {
        return Effect.succeed(undefined)
      }
      const result = Deferred.makeUnsafe<Tokens | undefined, MysqlError>()
      table.wishes.push({ claim, holder: session.id, count: spare + 1, result })
      startServing(table)
      return Effect.timeoutOrElse(Deferred.await(result), {
        duration: Math.min(table.sessions.settings.patience, claim.seconds * 1000),
        orElse: () => Effect.fail(stalled())
      })
    })
})

/** A program that may use the table need not be allowed to create it. */
const create = (connection: Connection, table: string): Effect.Effect<void, MysqlError> =>
  connection.run(`SELECT 1 FROM ${table} LIMIT 0`).await.pipe(
    Effect.catchIf(isNoTable, () =>
      connection.run(
        `CREATE TABLE IF NOT EXISTS ${table} (` +
          "name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY, " +
          "token BIGINT UNSIGNED NOT NULL) ENGINE = InnoDB"
      ).await),
    Effect.asVoid
  )

/** The source that the settings name; a table is created if it is missing. */
export const make = Effect.fnUntraced(function*(sessions: Sessions): Effect.fn.Return<Source, MysqlError> {
  if (sessions.settings.table === undefined) {
    return uuid
  }
  const table: Table = {
    sessions,
    name: quote(sessions.settings.table),
    session: undefined,
    wishes: [],
    serving: false
  }
  const { connection } = yield* sessionOf(table)
  yield* create(connection, table.name)
  return fromTable(table)
})
