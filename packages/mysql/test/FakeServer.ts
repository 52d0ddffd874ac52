/**
 * As much of a MySQL server as the backend talks to, in memory: sessions, locks that count, a line per lock, KILL. What
 * a real one does only by chance happens here when a test says so.
 */
import { Effect, Exit } from "effect"
import type { Answer, Client, Wire } from "../src/internal/client.ts"
import { MysqlError } from "../src/internal/errors.ts"

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
  /** For how many seconds it has been running. */
  uptime: number
  /** Global variables, by name. */
  readonly variables: Map<string, string>
  /** It has not got round to ending the sessions whose connections were closed, or that were killed. */
  slowToEnd: boolean
  /** It holds only one lock per session, as servers did long ago. */
  old: boolean
  /** What `CONNECTION_ID()` says, behind a proxy. */
  idShift: number
  /** The next connection fails with it. */
  refuse: MysqlError | undefined
  /** Statements for which it gives an error are refused with it. */
  fault: (sql: string, session: FakeSession) => MysqlError | undefined
  /** What a row of the table of tokens says. */
  counted: (name: string, token: number) => string | null
  /** How many connections are being made. */
  readonly handshakes: () => number
  /** How long it takes to make a connection. */
  handshake: Effect.Effect<void>
}

const bare = /^GET_LOCK\('(.+)', 0\)$/
const more = /^IF\(IS_USED_LOCK\('(.+)'\) <=> CONNECTION_ID\(\), (.+), NULL\)$/
const isFree = /^IS_USED_LOCK\('(.+)'\) IS NULL$/
const inspect = /, IS_USED_LOCK\('(.+)'\)\)$/
const take = /^IF\(GET_LOCK\('(.+)', 0\) = 1, (.+), NULL\)$/
const takeAgain = /^IF\(IS_USED_LOCK\('(.+)'\) <=> CONNECTION_ID\(\) OR GET_LOCK\('.+', 0\) = 1, (.+), NULL\)$/
const wait = /^IF\(GET_LOCK\('(.+)', 31536000\) = 1, (.+), NULL\)$/
const release = /^RELEASE_LOCK\('(.+)'\)$/
const owns = /^IS_USED_LOCK\('(.+)'\) <=> CONNECTION_ID\(\)$/

export const serverError = (errno: number, message = `error ${errno}`): MysqlError =>
  new MysqlError({ code: `ER_${errno}`, errno, message })

const lost = new MysqlError({ code: "PROTOCOL_CONNECTION_LOST", message: "Connection lost" })

const rows = (cells: ReadonlyArray<string | null>): Exit.Exit<Answer, MysqlError> =>
  Exit.succeed({ rows: cells.map((cell) => [cell]) })

export const make = (): FakeServer => {
  const sessions = new Set<State>()
  const locks = new Map<string, Lock>()
  const tokens = new Map<string, number>()
  let ids = 0
  let opening = 0
  let uuid = (7n << 56n) + (1_700_000_000n << 24n)

  const token = (expression: string): string => {
    const [, spare] = /BENCHMARK\((\d+)/.exec(expression) ?? []
    if (expression === "'0'") {
      return "0"
    }
    const first = ++uuid
    uuid += spare === undefined ? 0n : BigInt(spare) + 1n
    return spare === undefined ? String(first) : `${first}-${uuid}`
  }

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
    const [, got] = bare.exec(expression) ?? []
    if (got !== undefined) {
      if (fake.old) {
        for (const [name, lock] of locks) if (lock.holder === session) free(name)
      }
      grant(got, session)
      return "1"
    }
    const [, named] = isFree.exec(expression) ?? []
    if (named !== undefined) {
      return locks.has(named) ? "0" : "1"
    }
    const [, kept, moreOf] = more.exec(expression) ?? []
    if (kept !== undefined && moreOf !== undefined) {
      return locks.get(kept)?.holder === session ? token(moreOf) : null
    }
    const [, inspected] = inspect.exec(expression) ?? []
    if (inspected !== undefined) {
      const lock = locks.get(inspected)
      return lock === undefined ? "0" : `${lock.line.length},${lock.holder.id}`
    }
    if (expression.startsWith("CONCAT_WS(',', CONNECTION_ID()")) {
      const asked = [...expression.matchAll(/@@global\.(\w+)/g)].map(([, name]) => fake.variables.get(name ?? "") ?? "")
      return [id, ...asked].join(",")
    }
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
    if (expression.startsWith("CAST(UNIX_TIMESTAMP()")) {
      return String(fake.uptime)
    }
    throw new Error(`the fake server does not know ${expression}`)
  }

  const execute = (sql: string, session: State, reply: Reply): void => {
    const fault = fake.fault(sql, session)
    if (fault !== undefined) {
      return reply(Exit.fail(fault))
    }
    if (!session.open) {
      return
    }
    if (sql.startsWith("SET SESSION wait_timeout")) {
      session.waitTimeout = Number(/wait_timeout = (\d+)/.exec(sql)?.[1])
      return reply(rows([]))
    }
    if (sql.startsWith("SHOW GLOBAL VARIABLES")) {
      const asked = [...fake.variables].filter(([name]) => sql.includes(`'${name}'`))
      return reply(Exit.succeed({ rows: asked }))
    }
    if (sql.startsWith("KILL ")) {
      const id = Number(sql.slice("KILL ".length))
      const known = [...sessions].some((session) => session.id === id)
      if (!fake.slowToEnd) {
        fake.kill(id)
      }
      return reply(known ? rows([]) : Exit.fail(serverError(1094)))
    }
    if (sql.startsWith("INSERT INTO")) {
      for (const [, name = "", count] of sql.matchAll(/\('(.+?)', (\d+)\)/g)) {
        tokens.set(name, (tokens.get(name) ?? 0) + Number(count))
      }
      return reply(rows([]))
    }
    if (sql.startsWith("SELECT name, CAST(token")) {
      const holder = Number(/<=> (\d+)/.exec(sql)?.[1])
      const asked = [...tokens].filter(([name]) => sql.includes(`'${name}'`))
      return reply(
        Exit.succeed({
          rows: asked.map(([name, token]) => [
            name,
            fake.counted(name, token),
            locks.get(name)?.holder.id === holder ? "1" : "0"
          ])
        })
      )
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
      onClose: (listener) => {
        session.onEnd.push((error) => connected && listener(error))
      },
      quit: Effect.sync(() => end(session)),
      destroy: () => {
        connected = false
        if (!fake.slowToEnd) {
          end(session)
        }
      }
    }
  }

  const fake: FakeServer = {
    client: {
      isFull: () => false,
      connect: () =>
        Effect.suspend(() => {
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
          opening++
          return fake.handshake.pipe(
            Effect.ensuring(Effect.sync(() => opening--)),
            Effect.andThen(Effect.yieldNow),
            Effect.map(() => {
              sessions.add(session)
              return wire(session)
            })
          )
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
    uptime: 100_000,
    variables: new Map([["server_uuid", "a"], ["read_only", "OFF"], ["max_execution_time", "0"]]),
    slowToEnd: false,
    old: false,
    counted: (_, token) => `${token}`,
    handshakes: () => opening,
    handshake: Effect.void,
    idShift: 0,
    refuse: undefined,
    fault: () => undefined
  }
  return fake
}
