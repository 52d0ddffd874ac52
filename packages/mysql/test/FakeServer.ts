/**
 * As much of a MySQL server as the backend talks to, in memory: sessions, locks that count, a line per lock, KILL. What
 * a real one does only by chance happens here when a test says so.
 */
import { Effect, Exit } from "effect"
import type { Answer, Client, Wire } from "../src/internal/MysqlClient.ts"
import { MysqlError } from "../src/internal/MysqlError.ts"

type Reply = (exit: Exit.Exit<Answer, MysqlError>) => void

/** A session, as the server sees it. */
export interface FakeSession {
  readonly id: number
  /** What it was asked, in order. */
  readonly statements: Array<string>
  waitTimeout: number | undefined
  /** While true nothing that it is asked arrives, and nothing is answered. */
  frozen: boolean
}

interface State extends FakeSession {
  open: boolean
  /** What was held back. */
  readonly late: Array<() => void>
  waiting: { readonly name: string, readonly token: string, readonly reply: Reply } | undefined
  readonly onEnd: Array<(error: MysqlError) => void>
}

interface Lock {
  holder: State
  count: number
  readonly line: Array<State>
}

export interface FakeServer {
  readonly client: Client
  /** The open sessions, oldest first. */
  readonly sessions: () => ReadonlyArray<FakeSession>
  readonly holder: (name: string) => number | undefined
  readonly waiters: (name: string) => number
  /** Ends a session, as `KILL` does. */
  readonly kill: (id: number) => void
  /** Sends again what was held back. */
  readonly thaw: (session: FakeSession) => void
  /** Takes a lock away from the session that has it, behind its back. */
  readonly steal: (name: string) => void
  /** Gives a lock that is free to a session, unasked. */
  readonly grant: (name: string, session: FakeSession) => void
  /** Ends the wait at the head of a line, with an error or with NULL. */
  readonly endWait: (name: string, error: MysqlError | null) => void
  /** From now on sessions are of another run of the server. */
  readonly restartClock: () => void
  /** It is in its first second. */
  young: boolean
  version: string
  wsrep: string | undefined
  /** What `CONNECTION_ID()` says, behind a proxy. */
  idShift: number
  /** The next connection fails with it. */
  refuse: MysqlError | undefined
  /** Statements for which it gives an error are refused with it. */
  fault: (sql: string, session: FakeSession) => MysqlError | undefined
  /** So many KILLs find nothing to end, as if they came before the statement. */
  missedKills: number
}

const take = /^IF\(GET_LOCK\('(.+)', 0\) = 1, (.+), NULL\)$/
const takeAgain = /^IF\(IS_USED_LOCK\('(.+)'\) = CONNECTION_ID\(\) OR GET_LOCK\('.+', 0\) = 1, (.+), NULL\)$/
const wait = /^IF\(GET_LOCK\('(.+)', 31536000\) = 1, (.+), NULL\)$/
const release = /^RELEASE_LOCK\('(.+)'\)$/
const owns = /^IS_USED_LOCK\('(.+)'\) <=> CONNECTION_ID\(\)$/

export const serverError = (errno: number, message = `error ${errno}`): MysqlError =>
  new MysqlError({ code: `ER_${errno}`, errno, message })

const lost = new MysqlError({ code: "PROTOCOL_CONNECTION_LOST", message: "Connection lost" })

const rows = (cells: ReadonlyArray<string | null>): Exit.Exit<Answer, MysqlError> =>
  Exit.succeed({ rows: cells.map((cell) => [cell]), insertId: 0n })

export const make = (): FakeServer => {
  const sessions = new Set<State>()
  const locks = new Map<string, Lock>()
  const tokens = new Map<string, number>()
  let ids = 0
  let uuid = (7n << 56n) + (1_700_000_000n << 24n)

  const token = (expression: string): string => expression === "'0'" ? "0" : String(++uuid)

  const grant = (name: string, session: State): void => {
    const lock = locks.get(name)
    if (lock === undefined) {
      locks.set(name, { holder: session, count: 1, line: [] })
    } else {
      lock.count++
    }
  }

  const free = (name: string): void => {
    const lock = locks.get(name)
    const next = lock?.line.shift()
    if (lock === undefined || next === undefined) {
      locks.delete(name)
      return
    }
    lock.holder = next
    lock.count = 1
    const { waiting } = next
    next.waiting = undefined
    waiting?.reply(rows([token(waiting.token)]))
  }

  const leaveLine = (session: State): void => {
    const line = locks.get(session.waiting?.name ?? "")?.line
    line?.splice(line.indexOf(session), 1)
    session.waiting = undefined
  }

  const evaluate = (expression: string, session: State): string | null => {
    const id = session.id + fake.idShift
    const once = take.exec(expression)
    const [, taken, tokenOf] = once ?? takeAgain.exec(expression) ?? []
    if (taken !== undefined && tokenOf !== undefined) {
      const lock = locks.get(taken)
      if (lock !== undefined && lock.holder !== session) {
        return null
      }
      if (lock === undefined || once !== null) {
        grant(taken, session)
      }
      return token(tokenOf)
    }
    const [, released] = release.exec(expression) ?? []
    if (released !== undefined) {
      const lock = locks.get(released)
      if (lock?.holder !== session) {
        return "0"
      }
      if (--lock.count === 0) {
        free(released)
      }
      return "1"
    }
    const [, owned] = owns.exec(expression) ?? []
    if (owned !== undefined) {
      return locks.get(owned)?.holder === session ? "1" : "0"
    }
    switch (expression) {
      case "CONNECTION_ID() & 4294967295":
        return String(id)
      case "VERSION()":
        return fake.version
      case "UUID_SHORT() >> 24":
        return String(++uuid >> 24n)
      case "(UUID_SHORT() >> 24 & 4294967295) < UNIX_TIMESTAMP()":
        return fake.young ? "0" : "1"
      default:
        throw new Error(`the fake server does not know ${expression}`)
    }
  }

  const killQuery = (id: number): void => {
    const victim = [...sessions].find((session) => session.id === id)
    if (fake.missedKills > 0) {
      fake.missedKills--
    } else if (victim?.waiting !== undefined) {
      const { reply } = victim.waiting
      leaveLine(victim)
      reply(Exit.fail(serverError(1317, "Query execution was interrupted")))
    }
  }

  const execute = (sql: string, session: State, reply: Reply): void => {
    const fault = fake.fault(sql, session)
    if (fault !== undefined) {
      return reply(Exit.fail(fault))
    }
    if (!session.open) {
      return
    }
    if (sql.startsWith("SET SESSION")) {
      session.waitTimeout = Number(/wait_timeout = (\d+)/.exec(sql)?.[1])
      return reply(rows([]))
    }
    if (sql.startsWith("SHOW VARIABLES")) {
      return reply(
        Exit.succeed({ rows: fake.wsrep === undefined ? [] : [["wsrep_on", fake.wsrep]], insertId: 0n })
      )
    }
    if (sql.startsWith("KILL QUERY")) {
      killQuery(Number(sql.slice("KILL QUERY ".length)))
      return reply(rows([]))
    }
    const [, counted] = /VALUES \('(.+)', LAST_INSERT_ID/.exec(sql) ?? []
    if (counted !== undefined) {
      const next = (tokens.get(counted) ?? 0) + 1
      tokens.set(counted, next)
      return reply(Exit.succeed({ rows: [], insertId: BigInt(next) }))
    }
    if (!sql.startsWith("SELECT ") || sql.includes("LIMIT 0")) {
      return reply(rows([]))
    }
    const expressions = sql.slice("SELECT ".length).replace(" AS a", "").split(" UNION ALL SELECT ")
    const [, name, tokenOf] = wait.exec(expressions[0] ?? "") ?? []
    const lock = locks.get(name ?? "")
    if (name === undefined || tokenOf === undefined) {
      return reply(rows(expressions.map((expression) => evaluate(expression, session))))
    }
    if (lock === undefined || lock.holder === session) {
      grant(name, session)
      return reply(rows([token(tokenOf)]))
    }
    session.waiting = { name, token: tokenOf, reply }
    lock.line.push(session)
  }

  const end = (session: State): void => {
    if (!session.open) {
      return
    }
    session.open = false
    sessions.delete(session)
    if (session.waiting !== undefined) {
      leaveLine(session)
    }
    for (const [name, lock] of locks) {
      if (lock.holder === session) {
        free(name)
      }
    }
  }

  /** Answers come later, never within the call. */
  const later = (session: State, step: () => void): void => {
    queueMicrotask(() => session.frozen ? session.late.push(() => later(session, step)) : step())
  }

  const wire = (session: State): Wire => {
    let connected = true
    const send: Wire["send"] = (sql, onAnswer) => {
      session.statements.push(sql)
      later(session, () => {
        if (session.open) {
          execute(sql, session, (exit) => later(session, () => connected && onAnswer(exit)))
        }
      })
    }
    return {
      threadId: session.id,
      send,
      prepares: true,
      execute: (sql, value, onAnswer) => send(sql.replace("?", `'${value}'`), onAnswer),
      onClose: (listener) => {
        session.onEnd.push((error) => connected && listener(error))
      },
      quit: Effect.sync(() => end(session)),
      destroy: () => {
        connected = false
        end(session)
      }
    }
  }

  const fake: FakeServer = {
    client: {
      connect: Effect.suspend(() => {
        if (fake.refuse !== undefined) {
          return Effect.fail(fake.refuse)
        }
        const session: State = {
          id: ++ids,
          statements: [],
          waitTimeout: undefined,
          frozen: false,
          open: true,
          late: [],
          waiting: undefined,
          onEnd: []
        }
        sessions.add(session)
        return Effect.as(Effect.yieldNow, wire(session))
      })
    },
    sessions: () => [...sessions],
    holder: (name) => locks.get(name)?.holder.id,
    waiters: (name) => locks.get(name)?.line.length ?? 0,
    kill: (id) => {
      const session = [...sessions].find((session) => session.id === id)
      if (session !== undefined) {
        end(session)
        session.onEnd.forEach((f) => f(lost))
      }
    },
    thaw: (session) => {
      session.frozen = false
      for (const state of sessions) {
        if (state === session) {
          state.late.splice(0).forEach((step) => step())
        }
      }
    },
    steal: free,
    grant: (name, session) => {
      for (const state of sessions) {
        if (state === session) {
          grant(name, state)
        }
      }
    },
    endWait: (name, error) => {
      const head = locks.get(name)?.line[0]
      const reply = head?.waiting?.reply
      if (head !== undefined && reply !== undefined) {
        leaveLine(head)
        reply(error === null ? rows([null]) : Exit.fail(error))
      }
    },
    restartClock: () => {
      uuid += 1000n << 24n
    },
    young: false,
    version: "9.7.4",
    wsrep: undefined,
    idShift: 0,
    refuse: undefined,
    fault: () => undefined,
    missedKills: 0
  }
  return fake
}
