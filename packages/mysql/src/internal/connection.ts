/**
 * The ordered stream of statements on one connection: what was sent when, what waits to be sent, what was answered.
 *
 * One statement is under way at a time. Whatever is asked meanwhile goes out together as the next one, so that the
 * throughput does not depend on the round trip.
 */
import { Timers } from "@dlock/core/backend"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import type { Answer, Wire } from "./client.ts"
import { closed, isEnding, type MysqlError, senseless, stalled } from "./errors.ts"
import { type Expression, select } from "./requests.ts"

/** Something that was asked, whose answer may come long after its caller stopped waiting for it. */
export interface Ask<A> {
  /**
   * The answer. Fails with `stalled` when none came in time, which says nothing about what the server did, and never does
   * so for what was asked patiently. It may be awaited again.
   */
  readonly await: Effect.Effect<A, MysqlError>
  /** It was refused in company and is asked again: the server may have done what it says before. */
  readonly alone: boolean
  /** It has not been sent yet. */
  readonly isQueued: () => boolean
  /** Removes it from the queue if it was never sent; then it never will be, and `await` fails. */
  readonly withdraw: () => boolean
}

/** How the connection is. */
interface Pace {
  /** An answer is overdue. */
  overdue: boolean
  /** How long an answer may take, in milliseconds. */
  patience: number
}

/** Alone in its statement, and for as long as it takes: `patient`. Text of its own: `statement`. */
type Kind = "expression" | "patient" | "statement"

type Decode<A> = (answer: Answer, row: number) => Exit.Exit<A, MysqlError>

type OnAnswer<A> = (exit: Exit.Exit<A, MysqlError>) => void

const failStalled = Exit.fail(stalled())

class Question<A> implements Ask<A> {
  readonly kind: Kind
  readonly expression: Expression
  /** It was refused in company, which may be the company's fault. The server may have done what it says. */
  alone = false
  state: "queued" | "sent" | "settled" = "queued"
  private readonly pace: Pace
  private readonly decode: Decode<A>
  private readonly hook: OnAnswer<A> | undefined
  private answer: Exit.Exit<A, MysqlError> | undefined
  /** Completed by the answer; another one takes its place when the answer is overdue. */
  private waiters = Deferred.makeUnsafe<A, MysqlError>()

  constructor(kind: Kind, expression: Expression, pace: Pace, decode: Decode<A>, hook?: OnAnswer<A>) {
    this.kind = kind
    this.expression = expression
    this.pace = pace
    this.decode = decode
    this.hook = hook
  }

  /** Takes the answer out of its row, and calls the hook. */
  settle(exit: Exit.Exit<Answer, MysqlError>, row: number): void {
    this.state = "settled"
    this.answer = Exit.isSuccess(exit) ? this.decode(exit.value, row) : Exit.failCause(exit.cause)
    this.hook?.(this.answer)
  }

  /** Wakes the fibers that wait for the answer. */
  notify(): void {
    if (this.answer !== undefined) {
      Deferred.doneUnsafe(this.waiters, this.answer)
    }
  }

  /** Fails the fibers that wait no longer than the command timeout. */
  stall(): void {
    if (this.kind !== "patient") {
      const { waiters } = this
      this.waiters = Deferred.makeUnsafe()
      Deferred.doneUnsafe(waiters, failStalled)
    }
  }

  get await(): Effect.Effect<A, MysqlError> {
    return Effect.suspend(() => {
      const { kind, pace: { overdue, patience }, waiters } = this
      // The connection reports the delay of what is under way; what is asked during a delay has its own limit.
      return overdue && kind !== "patient"
        ? Effect.timeoutOrElse(Deferred.await(waiters), { duration: patience, orElse: () => failStalled })
        : Deferred.await(waiters)
    })
  }

  readonly isQueued = (): boolean => this.state === "queued"

  readonly withdraw = (): boolean => {
    if (this.state !== "queued" || this.alone) {
      return false
    }
    this.state = "settled"
    this.answer = Exit.fail(closed("it was withdrawn"))
    this.notify()
    return true
  }
}

type Entry = Pick<Question<unknown>, "kind" | "expression" | "alone" | "state" | "settle" | "notify" | "stall">

/** What runs in the layer's background. */
export interface Background {
  readonly timers: Timers.Timers
  /** Starts it in the layer's scope, from a callback. */
  readonly fork: (effect: Effect.Effect<void>) => void
}

export interface Listeners {
  /** The connection ended. Called before the answers that are missing fail. */
  readonly onClose: (error: MysqlError) => void
  /** An answer is overdue. */
  readonly onStall: () => void
}

/** How many expressions share a statement. */
const mostInOne = 128

const cell = (answer: Answer, row: number): Exit.Exit<string | null, MysqlError> => {
  const value = answer.rows[row]?.[0]
  return value === undefined
    ? Exit.fail(senseless("the server gave fewer rows than were asked for"))
    : Exit.succeed(value)
}

/** What is asked of one connection, in order. */
export class Connection {
  private readonly wire: Wire
  private readonly background: Background
  private readonly listeners: Listeners
  private readonly pace: Pace
  private ended: MysqlError | undefined
  private pumping = false
  private lastAnsweredFrom: number
  private sentAt = 0
  private underway: ReadonlyArray<Entry> = []
  private queue: Array<Entry> = []
  /** Rings when the statement under way may be overdue; a busy connection need not set it for each one. */
  private readonly watch = Timers.timer((now) => this.look(now))

  constructor(wire: Wire, patience: number, background: Background, listeners: Listeners) {
    this.wire = wire
    this.background = background
    this.listeners = listeners
    this.pace = { overdue: false, patience }
    this.lastAnsweredFrom = background.timers.now()
    wire.onClose(this.end)
  }

  /** The session's number, as far as the greeting tells it: 32 bits. */
  get threadId(): number {
    return this.wire.threadId
  }

  /** Asks for the value of an expression. */
  ask(expression: Expression, onAnswer?: OnAnswer<string | null>): Ask<string | null> {
    return this.enqueue(new Question("expression", expression, this.pace, cell, onAnswer))
  }

  /** As `ask`, alone in its statement and for as long as it takes. */
  askPatiently(expression: Expression, onAnswer?: OnAnswer<string | null>): Ask<string | null> {
    return this.enqueue(new Question("patient", expression, this.pace, cell, onAnswer))
  }

  /** A statement of its own. */
  run(sql: string): Ask<Answer> {
    return this.enqueue(new Question("statement", { text: () => sql }, this.pace, Exit.succeed))
  }

  /** When the last statement that was answered had been sent: the server's idle count began after that. */
  answeredFrom(): number {
    return this.lastAnsweredFrom
  }

  isOpen(): boolean {
    return this.ended === undefined
  }

  /** A statement is under way and its answer is overdue. */
  isStalled(): boolean {
    return this.pace.overdue
  }

  /** Nothing is under way or waits to be sent. */
  isQuiet(): boolean {
    return this.underway.length === 0 && this.queue.length === 0
  }

  /** How many milliseconds an answer may take, from the next statement on. */
  setPatience(patience: number): void {
    this.pace.patience = patience
    // The next statement starts it again.
    this.background.timers.clear(this.watch)
  }

  /** Ends it at once; the server releases everything it holds. What is not answered fails with `error`. */
  close(error: MysqlError): void {
    this.wire.destroy()
    this.end(error)
  }

  /** As `close`, but tells the server; for a connection without a statement under way. */
  get quit(): Effect.Effect<void> {
    return Effect.suspend(() => {
      // From now on nothing can be asked.
      this.end(closed("closed by the program"))
      return Effect.ensuring(Effect.timeoutOption(this.wire.quit, "1 second"), Effect.sync(this.wire.destroy))
    })
  }

  /** Sends what was asked for in this very step, if nothing is under way. */
  flush(): void {
    if (this.ended !== undefined || this.underway.length > 0) {
      return
    }
    const entries = this.takeNext()
    const first = entries[0]
    if (first === undefined) {
      return
    }
    this.underway = entries
    entries.forEach((entry) => {
      entry.state = "sent"
    })
    this.sentAt = this.background.timers.now()
    const texts = entries.map(({ alone, expression }) => expression.text(alone))
    this.wire.send(
      first.kind === "statement" ? texts.join("") : select(texts),
      (exit) => this.onAnswer(entries, exit)
    )
    if (this.watch.slot === -1 && first.kind !== "patient") {
      this.background.timers.set(this.watch, this.sentAt + this.pace.patience)
    }
  }

  private enqueue<A>(entry: Question<A>): Ask<A> {
    if (this.ended === undefined) {
      this.queue.push(entry)
      this.flushSoon()
    } else {
      entry.settle(Exit.fail(closed("the connection had ended")), 0)
      entry.notify()
    }
    return entry
  }

  /**
   * Sends in a moment. A release and the next request come in the same moment, and so do the requests of callers that
   * have just got their answers: they go out together.
   */
  private flushSoon(): void {
    if (!this.pumping) {
      this.pumping = true
      queueMicrotask(() => {
        this.pumping = false
        this.flush()
      })
    }
  }

  /** What goes out next. What was withdrawn is left out. */
  private takeNext(): ReadonlyArray<Entry> {
    const entries: Array<Entry> = []
    while (entries.length < mostInOne) {
      const entry = this.queue[0]
      const isAlone = entry?.kind !== "expression" || entry.alone
      if (entry === undefined || (isAlone && entries.length > 0)) {
        break
      }
      this.queue.shift()
      if (entry.state === "queued") {
        entries.push(entry)
        if (isAlone) {
          break
        }
      }
    }
    return entries
  }

  private onAnswer(entries: ReadonlyArray<Entry>, exit: Exit.Exit<Answer, MysqlError>): void {
    if (this.underway !== entries) {
      return
    }
    const error = Exit.isFailure(exit) ? Result.getOrUndefined(Exit.findError(exit)) : undefined
    if (error !== undefined && isEnding(error)) {
      return this.close(error)
    }
    this.underway = []
    this.pace.overdue = false
    this.lastAnsweredFrom = this.sentAt
    if (Exit.isFailure(exit) && entries.length > 1) {
      entries.forEach((entry) => {
        entry.alone = true
        entry.state = "queued"
      })
      this.queue = [...entries, ...this.queue]
    } else {
      this.settleAll(entries, exit)
    }
    this.flushSoon()
  }

  // An answer may close the connection; then the answers beside it mean nothing.
  private settleAll(entries: ReadonlyArray<Entry>, exit: Exit.Exit<Answer, MysqlError>): void {
    entries.forEach((entry, row) => entry.settle(this.ended === undefined ? exit : Exit.fail(this.ended), row))
    entries.forEach((entry) => entry.notify())
  }

  private readonly end = (error: MysqlError): void => {
    if (this.ended !== undefined) {
      return
    }
    this.ended = error
    this.background.timers.clear(this.watch)
    const missing = [...this.underway, ...this.queue].filter((entry) => entry.state !== "settled")
    this.underway = []
    this.queue = []
    this.listeners.onClose(error)
    this.settleAll(missing, Exit.fail(error))
  }

  private look(now: number): void {
    const due = this.sentAt + this.pace.patience
    if (this.underway.length === 0 || this.underway[0]?.kind === "patient") {
      return
    }
    if (now < due) {
      return this.background.timers.set(this.watch, due)
    }
    // After a blocked event loop its timers come before its sockets: what has arrived meanwhile counts.
    const { underway } = this
    this.background.fork(Effect.andThen(Effect.yieldNow, Effect.sync(() => underway === this.underway && this.stall())))
  }

  private stall(): void {
    this.pace.overdue = true
    const late = [...this.underway, ...this.queue]
    this.listeners.onStall()
    late.forEach((entry) => entry.stall())
  }
}
