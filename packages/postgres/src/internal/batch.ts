/**
 * Calls of one function, joined: those that are made in one turn of the event loop, or while others are under way, go
 * out as one statement and so as one commit. Every function may be called twice.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Client, Failure, Rows, Session } from "./client.ts"
import { pause, sqlErrorOf, telling } from "./client.ts"
import * as errors from "./errors.ts"

type Row = Rows[number]

/** The call for one key. */
export interface Call {
  readonly key: string
  /** Until when it may be sent, in milliseconds of monotonic time. */
  readonly until: number
  /**
   * The parameters, one for each array that the function takes, when it is sent at this moment; `undefined`: it is not
   * wanted any more.
   */
  readonly write: (session: Session, now: number) => ReadonlyArray<unknown> | undefined
  /** The server did what was asked, or refused it: nothing is under way. */
  readonly settled: () => void
  /** Neither a row nor a failure: the server has none for it, or it was not wanted any more. */
  readonly done: (row: Row | undefined, failure: Failure | undefined) => void
}

/** The most keys in one statement, so that a row that is waited for holds up few others. */
const most = 100

/** How many statements of a function are under way at a time: one is executed while the next one travels. */
const width = 2

/** What is told of calls whose time was over before they were sent. */
const late: Failure = { _tag: "Late", sent: false }

export class Batch {
  private readonly client: Client
  private readonly text: string
  private readonly first: () => ReadonlyArray<unknown>
  private calls: Array<Call> = []
  private underWay = 0
  private isScheduled = false
  private turnAt = 0

  /** `first`: the parameters before the arrays. */
  constructor(client: Client, text: string, first: () => ReadonlyArray<unknown> = () => []) {
    this.client = client
    this.text = text
    this.first = first
  }

  /** The time, read once for all calls of one turn of the event loop: it costs a good part of a call. */
  now(): number {
    if (!this.isScheduled) this.turnAt = this.client.now()
    return this.turnAt
  }

  add(call: Call): void {
    this.calls.push(call)
    if (this.isScheduled) return
    this.isScheduled = true
    queueMicrotask(() => {
      this.isScheduled = false
      this.flush()
    })
  }

  private flush(): void {
    while (this.calls.length > 0 && this.underWay < width) {
      this.underWay++
      this.send(this.calls.splice(0, most), late, () => {
        this.underWay--
        this.flush()
      })
    }
  }

  /** Those that are still in time at this moment; the others fail. */
  private inTime(calls: ReadonlyArray<Call>, at: number, failure: Failure): ReadonlyArray<Call> {
    const isInTime = (call: Call): boolean => call.until > at
    for (const call of calls) if (!isInTime(call)) call.done(undefined, failure)
    return calls.filter(isInTime)
  }

  /** Sends calls in the order of their keys, which is the same for every client. `done`: the next statement may go. */
  private send(calls: ReadonlyArray<Call>, last: Failure, done: () => void): void {
    const now = this.client.now()
    const wanted = this.inTime(calls, now, last).toSorted((a, b) => a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
    if (wanted.length === 0) return done()
    const sent: Array<Call> = []
    const write = (session: Session): ReadonlyArray<unknown> | undefined => {
      const columns: Array<Array<unknown>> = []
      const sentAt = this.client.now()
      for (const call of wanted) {
        const row = call.write(session, sentAt)
        if (row === undefined) call.done(undefined, undefined)
        else {
          row.forEach((value, column) => (columns[column] ??= []).push(value))
          sent.push(call)
        }
      }
      return sent.length === 0 ? undefined : [...this.first(), ...columns]
    }
    const limit = wanted.reduce((until, call) => Math.max(until, call.until), now) - now
    this.client.send(this.text, limit, write, (answer) => {
      if (Result.isSuccess(answer)) {
        this.answer(sent, answer.success)
        return done()
      }
      this.fail(answer.failure.sent ? sent : wanted, answer.failure, last, done)
    })
  }

  private answer(calls: ReadonlyArray<Call>, rows: Rows): void {
    // Rows come in the order of the calls, and not every call has one; number 0 is for all of them.
    let next = 0
    calls.forEach((call, i) => {
      const row = rows[next]
      const isItsRow = row?.[0] === i + 1
      if (isItsRow) next++
      call.settled()
      call.done(isItsRow || row?.[0] === 0 ? row : undefined, undefined)
    })
  }

  /** Ends calls that failed, or sends them again. `done`: the next statement may go. */
  private fail(calls: ReadonlyArray<Call>, failure: Failure, before: Failure, done: () => void): void {
    const error = sqlErrorOf(failure)
    const isOfOneKey = error !== undefined && errors.mayBeOfOneKey(error)
    if (error !== undefined && failure.sent && errors.isRefusal(error)) calls.forEach((call) => call.settled())
    // A row that stays locked holds up the calls of its key; a server that refuses everything gets no more statements.
    if (isOfOneKey) done()
    const then = isOfOneKey ? () => {} : done
    if (isOfOneKey && calls.length > 1) {
      for (const call of calls) this.send([call], failure, then)
    } else if (error !== undefined && errors.passes(error)) {
      const again = this.inTime(calls, this.client.now() + pause, failure)
      // Also when the layer closes: then they fail.
      this.client.fork(Effect.sleep(pause)).addObserver(() => this.send(again, failure, then))
    } else {
      for (const call of calls) call.done(undefined, telling(failure, before))
      then()
    }
  }
}
