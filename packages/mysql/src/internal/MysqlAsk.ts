/**
 * One question to the server, from its place in the queue to its answer.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Answer } from "./MysqlClient.ts"
import { closed, type MysqlError, stalled } from "./MysqlError.ts"
import type { Expression } from "./MysqlSql.ts"

/** Something that was asked, whose answer may come long after everybody stopped waiting for it. */
export interface Ask<A> {
  /**
   * The answer; fails with `stalled` when none came in time, which says nothing about what the server did. May be
   * awaited again.
   */
  readonly await: Effect.Effect<A, MysqlError>
  /** The answer, however long it takes: the connection answers or ends. */
  readonly settled: Effect.Effect<A, MysqlError>
  /** Takes it back if it was never sent; then it never will be, and who waits for the answer fails. */
  readonly withdraw: () => boolean
}

/** An `Ask`, as the queue sees it. */
export interface Entry {
  readonly kind: "expression" | "patient" | "statement"
  /** It was refused in company, which may be the company's fault. The server may have done what it says. */
  alone: boolean
  state: "queued" | "sent" | "settled"
  readonly expression: Expression
  /** Takes the answer out of its row, and tells the hook. */
  readonly settle: (exit: Exit.Exit<Answer, MysqlError>, row: number) => void
  /** Wakes who waits for the answer. */
  readonly notify: () => void
  /** Wakes who does not wait for longer. */
  readonly stall: () => void
}

/** How the connection is. */
export interface Pace {
  /** An answer is overdue. */
  overdue: boolean
  /** How long an answer may take. */
  patience: bigint
}

const failStalled = () => Effect.fail(stalled())

interface Waiter<A> {
  readonly resume: (exit: Exit.Exit<A, MysqlError>) => void
  readonly patient: boolean
}

export class Question<A> implements Ask<A>, Entry {
  readonly kind: Entry["kind"]
  alone = false
  state: Entry["state"] = "queued"
  readonly expression: Expression
  private readonly decode: (answer: Answer, row: number) => Exit.Exit<A, MysqlError>
  private readonly hook: ((exit: Exit.Exit<A, MysqlError>) => void) | undefined
  private readonly pace: Pace
  private answer: Exit.Exit<A, MysqlError> | undefined
  private waiters: Array<Waiter<A>> = []

  constructor(
    expression: Expression,
    kind: Entry["kind"],
    pace: Pace,
    decode: (answer: Answer, row: number) => Exit.Exit<A, MysqlError>,
    hook: ((exit: Exit.Exit<A, MysqlError>) => void) | undefined
  ) {
    this.expression = expression
    this.kind = kind
    this.pace = pace
    this.decode = decode
    this.hook = hook
  }

  settle(exit: Exit.Exit<Answer, MysqlError>, row: number): void {
    this.state = "settled"
    this.answer = Exit.isSuccess(exit) ? this.decode(exit.value, row) : Exit.failCause(exit.cause)
    this.hook?.(this.answer)
  }

  notify(): void {
    const { answer, waiters } = this
    if (answer === undefined) return
    this.waiters = []
    waiters.forEach(({ resume }) => resume(answer))
  }

  stall(): void {
    const { waiters } = this
    this.waiters = waiters.filter(({ patient }) => patient)
    waiters.forEach(({ patient, resume }) => patient || resume(Exit.fail(stalled())))
  }

  private listen(patient: boolean): Effect.Effect<A, MysqlError> {
    return Effect.callback<A, MysqlError>((resume) => {
      if (this.answer !== undefined) {
        return resume(this.answer)
      }
      if (!patient && this.pace.overdue) {
        // The connection tells of the delay of what is under way; what is asked during a delay has its own.
        return resume(
          Effect.timeoutOrElse(this.listen(true), { duration: Duration.nanos(this.pace.patience), orElse: failStalled })
        )
      }
      const waiter = { patient, resume }
      this.waiters.push(waiter)
      return Effect.sync(() => {
        this.waiters = this.waiters.filter((other) => other !== waiter)
      })
    })
  }

  get await(): Effect.Effect<A, MysqlError> {
    return this.listen(false)
  }

  get settled(): Effect.Effect<A, MysqlError> {
    return this.listen(true)
  }

  readonly withdraw = (): boolean => {
    if (this.state !== "queued" || this.alone) {
      return false
    }
    this.state = "settled"
    this.answer = Exit.fail(closed("it was taken back"))
    this.notify()
    return true
  }
}
