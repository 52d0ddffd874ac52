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
import type { Answer, Wire } from "./MysqlClient.ts"
import { closed, type MysqlError, senseless, stalled } from "./MysqlError.ts"
import { select } from "./MysqlSql.ts"

/** Something that was asked, whose answer may come long after everybody stopped waiting for it. */
export interface Ask<A> {
  /**
   * The answer; fails with `stalled` when none came in time, which says nothing about what the server did. May be
   * awaited again.
   */
  readonly await: Effect.Effect<A, MysqlError>
  /** The answer, however long it takes: the connection answers or ends. */
  readonly settled: Effect.Effect<A, MysqlError>
  /** Takes it back if it was not sent yet; then it never will be, and who waits for the answer fails. */
  readonly withdraw: () => boolean
}

export interface Connection {
  /** `CONNECTION_ID()`, as far as the greeting tells it. */
  readonly id: number
  /** Asks for the value of an expression, which must bear being evaluated again. */
  readonly ask: (expression: string, onAnswer?: (exit: Exit.Exit<string | null, MysqlError>) => void) => Ask<
    string | null
  >
  /** As `ask`, alone in its statement and for as long as it takes. */
  readonly askPatiently: Connection["ask"]
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
  /** As `close`, but says goodbye first. */
  readonly quit: Effect.Effect<void>
}

export interface Listeners {
  /** It ended, by whomever. Called before the answers that are missing fail. */
  readonly onClose: (error: MysqlError) => void
  /** An answer is overdue. */
  readonly onStall: () => void
}

/** What stands in the queue. */
interface Entry {
  readonly sql: string
  readonly kind: "expression" | "patient" | "statement"
  /** It was refused in company, which may be the company's fault. */
  alone: boolean
  state: "queued" | "sent" | "settled"
  readonly settle: (exit: Exit.Exit<Answer, MysqlError>, row: number) => void
  readonly notify: () => void
  readonly stall: () => void
}

const longest = 128

const cell = (answer: Answer, row: number): Exit.Exit<string | null, MysqlError> => {
  const value = answer.rows[row]?.[0]
  if (value === undefined) {
    return Exit.fail(senseless("the server gave fewer rows than were asked for"))
  }
  return typeof value === "string" || value === null
    ? Exit.succeed(value)
    : Exit.fail(senseless("the server gave a value that is no text"))
}

export const make = Effect.fnUntraced(function*(wire: Wire, patience: Duration.Duration, listeners: Listeners) {
  const clock = yield* Clock.Clock
  const fork = Effect.runForkWith(yield* Effect.context<never>())

  let open = true
  let overdue = false
  let settling = false
  let patienceNanos = Duration.toNanosUnsafe(patience)
  let answeredFrom = clock.monotonicTimeNanosUnsafe()
  let sentAt = 0n
  let underway: ReadonlyArray<Entry> = []
  let queue: Array<Entry> = []
  let watch: Fiber.Fiber<void> | undefined

  /** One fiber sleeps until the statement under way would be overdue; a busy connection costs no timer per statement. */
  const watchOnce: Effect.Effect<void> = Effect.suspend(() => {
    const left = sentAt + patienceNanos - clock.monotonicTimeNanosUnsafe()
    if (!open || underway.length === 0 || underway[0]?.kind === "patient") {
      watch = undefined
      return Effect.void
    }
    if (left > 0n) {
      // After a blocked event loop its timers come before its sockets: what has arrived meanwhile counts.
      return Effect.andThen(Effect.sleep(Duration.nanos(left)), Effect.andThen(Effect.yieldNow, watchOnce))
    }
    watch = undefined
    overdue = true
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
    if (!open || settling || underway.length > 0) {
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
    wire.send(
      first.kind === "statement" ? first.sql : select(entries.map((entry) => entry.sql)),
      (exit) => onAnswer(entries, exit)
    )
    if (watch === undefined && first.kind !== "patient") {
      watch = fork(watchOnce)
    }
  }

  const onAnswer = (entries: ReadonlyArray<Entry>, exit: Exit.Exit<Answer, MysqlError>): void => {
    if (underway !== entries) {
      return
    }
    underway = []
    overdue = false
    answeredFrom = sentAt
    if (Exit.isFailure(exit) && entries.length > 1) {
      entries.forEach((entry) => {
        entry.alone = true
        entry.state = "queued"
      })
      queue = [...entries, ...queue]
    } else {
      settleAll(entries, exit)
    }
    pump()
  }

  // Whoever is resumed asks again at once; those questions are to go out together.
  const settleAll = (entries: ReadonlyArray<Entry>, exit: Exit.Exit<Answer, MysqlError>): void => {
    settling = true
    entries.forEach((entry, row) => entry.settle(exit, row))
    entries.forEach((entry) => entry.notify())
    settling = false
  }

  const end = (error: MysqlError): void => {
    if (!open) {
      return
    }
    open = false
    watch?.interruptUnsafe()
    const missing = [...underway, ...queue].filter((entry) => entry.state !== "settled")
    underway = []
    queue = []
    listeners.onClose(error)
    settleAll(missing, Exit.fail(error))
  }

  const enqueue = <A>(
    sql: string,
    kind: Entry["kind"],
    decode: (answer: Answer, row: number) => Exit.Exit<A, MysqlError>,
    hook?: (exit: Exit.Exit<A, MysqlError>) => void
  ): Ask<A> => {
    type Waiter = (exit: Exit.Exit<A, MysqlError>) => void
    const impatient = new Set<Waiter>()
    const patient = new Set<Waiter>()
    let answer: Exit.Exit<A, MysqlError> | undefined
    const tell = (waiters: Set<Waiter>, exit: Exit.Exit<A, MysqlError>) => {
      const all = [...waiters]
      waiters.clear()
      all.forEach((waiter) => waiter(exit))
    }
    const entry: Entry = {
      sql,
      kind,
      alone: false,
      state: "queued",
      settle: (exit, row) => {
        entry.state = "settled"
        const decoded = Exit.isSuccess(exit) ? decode(exit.value, row) : Exit.failCause(exit.cause)
        answer = decoded
        hook?.(decoded)
      },
      notify: () => {
        if (answer !== undefined) {
          tell(impatient, answer)
          tell(patient, answer)
        }
      },
      stall: () => tell(impatient, Exit.fail(stalled()))
    }
    const listen = (waiters: Set<Waiter>) =>
      Effect.callback<A, MysqlError>((resume) => {
        if (answer !== undefined) {
          return resume(answer)
        }
        waiters.add(resume)
        return Effect.sync(() => waiters.delete(resume))
      })
    if (open) {
      queue.push(entry)
      pump()
    } else {
      entry.settle(Exit.fail(closed("the connection had ended")), 0)
    }
    return {
      // The watch tells of the delay of what is under way; what is asked during a delay has its own.
      await: Effect.suspend(() =>
        overdue && answer === undefined
          ? Effect.timeoutOrElse(listen(patient), {
            duration: Duration.nanos(patienceNanos),
            orElse: () => Effect.fail(stalled())
          })
          : listen(impatient)
      ),
      settled: listen(patient),
      withdraw: () => {
        if (entry.state !== "queued") {
          return false
        }
        entry.state = "settled"
        answer = Exit.fail(closed("it was taken back"))
        entry.notify()
        return true
      }
    }
  }

  wire.onClose(end)

  const connection: Connection = {
    id: wire.threadId,
    ask: (expression, onAnswer) => enqueue(expression, "expression", cell, onAnswer),
    askPatiently: (expression, onAnswer) => enqueue(expression, "patient", cell, onAnswer),
    run: (sql) => enqueue(sql, "statement", Exit.succeed),
    answeredFrom: () => answeredFrom,
    isOpen: () => open,
    isStalled: () => overdue,
    isQuiet: () => underway.length === 0 && queue.length === 0,
    setPatience: (patience) => {
      patienceNanos = Duration.toNanosUnsafe(patience)
      // The next statement starts it again.
      watch?.interruptUnsafe()
      watch = undefined
    },
    close: (error) => {
      wire.destroy()
      end(error)
    },
    quit: Effect.andThen(
      Effect.timeoutOption(wire.quit, "1 second"),
      Effect.sync(() => {
        wire.destroy()
        end(closed("closed by us"))
      })
    )
  }
  return connection
})
