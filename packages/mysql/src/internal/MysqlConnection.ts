/**
 * The ordered stream of statements on one connection: what was sent when, what waits to be sent, what was answered.
 *
 * One statement is under way at a time. Whatever gathered meanwhile goes out together as the next one, so the
 * throughput does not hang on the round trip.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import { type Ask, type Entry, type Pace, Question } from "./MysqlAsk.ts"
import type { Answer, Wire } from "./MysqlClient.ts"
import { closed, isEnding, isUnprepared, type MysqlError, senseless } from "./MysqlError.ts"
import { type Expression, select } from "./MysqlSql.ts"

export interface Connection {
  /** `CONNECTION_ID()`, as far as the greeting tells it. */
  readonly id: number
  /** Asks for the value of an expression. */
  readonly ask: (
    expression: Expression,
    onAnswer?: (exit: Exit.Exit<string | null, MysqlError>) => void
  ) => Ask<string | null>
  /** As `ask`, alone in its statement and for as long as it takes. */
  readonly askPatiently: Connection["ask"]
  /** Sends what was asked for in this very step, if nothing is under way. */
  readonly flush: () => void
  /** A statement of its own. */
  readonly run: (sql: string) => Ask<Answer>
  /** When the last statement that was answered had been sent: the server's idle count began after that. */
  readonly answeredFrom: () => bigint
  readonly isOpen: () => boolean
  /** A statement is under way and its answer is overdue. */
  readonly isStalled: () => boolean
  /** Nothing is under way or waits to be sent. */
  readonly isQuiet: () => boolean
  /** How long an answer may take, from the next statement on. */
  readonly setPatience: (patience: Duration.Duration) => void
  /** Ends it at once; the server gives up everything it holds. Whoever waits for an answer gets `error`. */
  readonly close: (error: MysqlError) => void
  /** As `close`, but says goodbye; for a quiet one. */
  readonly quit: Effect.Effect<void>
}

export interface Listeners {
  /** It ended, by whomever. Called before the answers that are missing fail. */
  readonly onClose: (error: MysqlError) => void
  /** An answer is overdue. */
  readonly onStall: () => void
}

const longest = 128

const cell = (answer: Answer, row: number): Exit.Exit<string | null, MysqlError> => {
  const value = answer.rows[row]?.[0]
  if (typeof value === "string" || value === null) {
    return Exit.succeed(value)
  }
  if (typeof value === "number") {
    return Exit.succeed(String(value))
  }
  return Exit.fail(
    senseless(value === undefined ? "the server gave fewer rows than were asked for" : "the server gave no text")
  )
}

export const make = Effect.fnUntraced(function*(wire: Wire, patience: Duration.Duration, listeners: Listeners) {
  const clock = yield* Clock.Clock
  const fork = Effect.runForkWith(yield* Effect.context<never>())

  const pace: Pace = { overdue: false, patience: Duration.toNanosUnsafe(patience) }
  let ended: MysqlError | undefined
  let pumping = false
  let { prepares } = wire
  /** To prepare a statement is a round trip, which many a session needs for nothing. */
  const sentBefore = new Set<string>()
  let answeredFrom = clock.monotonicTimeNanosUnsafe()
  let sentAt = 0n
  let underway: ReadonlyArray<Entry> = []
  let queue: Array<Entry> = []
  let watch: Fiber.Fiber<void> | undefined

  /** One fiber sleeps until the statement under way would be overdue; a busy connection costs no timer per statement. */
  const watchOnce: Effect.Effect<void> = Effect.suspend(() => {
    const left = sentAt + pace.patience - clock.monotonicTimeNanosUnsafe()
    if (ended !== undefined || underway.length === 0 || underway[0]?.kind === "patient") {
      watch = undefined
      return Effect.void
    }
    if (left > 0n) {
      // After a blocked event loop its timers come before its sockets: what has arrived meanwhile counts.
      return Effect.andThen(Effect.sleep(Duration.nanos(left)), Effect.andThen(Effect.yieldNow, watchOnce))
    }
    watch = undefined
    pace.overdue = true
    const late = [...underway, ...queue]
    listeners.onStall()
    late.forEach((entry) => entry.stall())
    return Effect.void
  })

  /** What goes out next. What was withdrawn is left out. */
  const next = (): ReadonlyArray<Entry> => {
    const entries: Array<Entry> = []
    while (entries.length < longest) {
      const entry = queue[0]
      const isAlone = entry?.kind !== "expression" || entry.alone
      if (entry === undefined || (isAlone && entries.length > 0)) {
        break
      }
      queue.shift()
      if (entry.state === "queued") {
        entries.push(entry)
        if (isAlone) {
          break
        }
      }
    }
    return entries
  }

  const pump = (): void => {
    if (ended !== undefined || underway.length > 0) {
      return
    }
    const entries = next()
    const first = entries[0]
    if (first === undefined) {
      return
    }
    underway = entries
    entries.forEach((entry) => {
      entry.state = "sent"
    })
    sentAt = clock.monotonicTimeNanosUnsafe()
    const { prepared } = first.expression
    const mayPrepare = prepares && prepared !== undefined && entries.length === 1 && !first.alone
    if (mayPrepare && sentBefore.has(prepared.sql)) {
      wire.execute(prepared.sql, prepared.name, (exit) => onAnswer(entries, exit))
    } else {
      if (mayPrepare) {
        sentBefore.add(prepared.sql)
      }
      const texts = entries.map(({ alone, expression }) => expression.text(alone))
      wire.send(first.kind === "statement" ? texts.join("") : select(texts), (exit) => onAnswer(entries, exit))
    }
    if (watch === undefined && first.kind !== "patient") {
      watch = fork(watchOnce)
    }
  }

  /**
   * Sends in a moment. A release and the next one's request come in the same moment, and so do the requests of those who
   * have just got their answers: they go out together.
   */
  const pumpSoon = (): void => {
    if (!pumping) {
      pumping = true
      queueMicrotask(() => {
        pumping = false
        pump()
      })
    }
  }

  const onAnswer = (entries: ReadonlyArray<Entry>, exit: Exit.Exit<Answer, MysqlError>): void => {
    if (underway !== entries) {
      return
    }
    const error = Exit.isFailure(exit) ? Result.getOrUndefined(Exit.findError(exit)) : undefined
    if (error !== undefined && isEnding(error)) {
      return close(error)
    }
    underway = []
    pace.overdue = false
    answeredFrom = sentAt
    const unprepared = error !== undefined && prepares && isUnprepared(error)
    if (unprepared) {
      prepares = false
    }
    if (unprepared || (Exit.isFailure(exit) && entries.length > 1)) {
      entries.forEach((entry) => {
        entry.alone = !unprepared
        entry.state = "queued"
      })
      queue = [...entries, ...queue]
    } else {
      settleAll(entries, exit)
    }
    pumpSoon()
  }

  // An answer may tell that the connection is of no use; then those beside it mean nothing.
  const settleAll = (entries: ReadonlyArray<Entry>, exit: Exit.Exit<Answer, MysqlError>): void => {
    entries.forEach((entry, row) => entry.settle(ended === undefined ? exit : Exit.fail(ended), row))
    entries.forEach((entry) => entry.notify())
  }

  const end = (error: MysqlError): void => {
    if (ended !== undefined) {
      return
    }
    ended = error
    watch?.interruptUnsafe()
    const missing = [...underway, ...queue].filter((entry) => entry.state !== "settled")
    underway = []
    queue = []
    listeners.onClose(error)
    settleAll(missing, Exit.fail(error))
  }

  const close = (error: MysqlError): void => {
    wire.destroy()
    end(error)
  }

  const enqueue = <A>(entry: Question<A>): Ask<A> => {
    if (ended === undefined) {
      queue.push(entry)
      pumpSoon()
    } else {
      entry.settle(Exit.fail(closed("the connection had ended")), 0)
    }
    return entry
  }

  wire.onClose(end)

  const connection: Connection = {
    id: wire.threadId,
    ask: (expression, onAnswer) => enqueue(new Question(expression, "expression", pace, cell, onAnswer)),
    askPatiently: (expression, onAnswer) => enqueue(new Question(expression, "patient", pace, cell, onAnswer)),
    flush: pump,
    run: (sql) => enqueue(new Question({ text: () => sql }, "statement", pace, Exit.succeed, undefined)),
    answeredFrom: () => answeredFrom,
    isOpen: () => ended === undefined,
    isStalled: () => pace.overdue,
    isQuiet: () => underway.length === 0 && queue.length === 0,
    setPatience: (patience) => {
      pace.patience = Duration.toNanosUnsafe(patience)
      // The next statement starts it again.
      watch?.interruptUnsafe()
      watch = undefined
    },
    close,
    quit: Effect.suspend(() => {
      // Nobody may ask any more.
      end(closed("closed by us"))
      return Effect.ensuring(Effect.timeoutOption(wire.quit, "1 second"), Effect.sync(wire.destroy))
    })
  }
  return connection
})
