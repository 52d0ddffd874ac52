/**
 * Calls of one function, joined: those that are made in one turn of the event loop, or while others are under way, go
 * out as one statement and so as one commit. Every function may be called twice.
 */
import { Timers } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Client, Failure, Rows, Session } from "./client.ts"
import { pause, sqlErrorOf, telling } from "./client.ts"
import * as errors from "./errors.ts"

type Row = Rows[number]

/** The call for one key. */
export interface Call {
  readonly key: string
  /** For how long it may be sent, and is waited for, in milliseconds. */
  readonly limit: number
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

/** A place among the statements that are under way. */
interface Place {
  isTaken: boolean
  /** How many calls of the statement are not over. */
  calls: number
}

/** A call that was made. It is over when its caller was told. */
interface Pending {
  readonly call: Call
  readonly timer: Timers.Timer
  isOver: boolean
  place: Place | undefined
  /** What it failed with when it was sent before. */
  before: Failure | undefined
}

const byKey = ({ call: a }: Pending, { call: b }: Pending): number => a.key < b.key ? -1 : a.key > b.key ? 1 : 0

export class Batch {
  private readonly client: Client
  private readonly text: string
  private readonly first: () => ReadonlyArray<unknown>
  private line: Array<Pending> = []
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
  private now(): number {
    if (!this.isScheduled) this.turnAt = this.client.now()
    return this.turnAt
  }

  add(call: Call): void {
    const timer = Timers.timer(() => this.late(pending))
    const pending: Pending = { call, timer, isOver: false, place: undefined, before: undefined }
    this.client.timers.set(timer, this.now() + call.limit)
    this.line.push(pending)
    if (this.isScheduled) return
    this.isScheduled = true
    queueMicrotask(() => {
      this.isScheduled = false
      this.flush()
    })
  }

  private end(pending: Pending, row: Row | undefined, failure: Failure | undefined): void {
    if (pending.isOver) return
    pending.isOver = true
    this.client.timers.clear(pending.timer)
    pending.call.done(row, failure && telling(failure, pending.before))
    const { place } = pending
    if (place !== undefined && --place.calls === 0) this.leave(place)
  }

  private late(pending: Pending): void {
    this.end(pending, undefined, { _tag: "Late", limit: pending.call.limit })
    this.client.suspect()
  }

  private leave(place: Place): void {
    if (!place.isTaken) return
    place.isTaken = false
    this.underWay--
    this.flush()
  }

  private flush(): void {
    while (this.line.length > 0 && this.underWay < width) {
      const calls = this.line.splice(0, most).filter(({ isOver }) => !isOver)
      if (calls.length === 0) continue
      const place: Place = { isTaken: true, calls: calls.length }
      this.underWay++
      for (const pending of calls) pending.place = place
      this.send(calls, place)
    }
  }

  /** Those that are not over at this moment; a timer may ring late. */
  private inTime(calls: ReadonlyArray<Pending>, now: number): ReadonlyArray<Pending> {
    for (const pending of calls) if (!pending.isOver && pending.timer.due <= now) this.late(pending)
    return calls.filter(({ isOver }) => !isOver)
  }

  /** Sends calls in the order of their keys, which is the same for every client. */
  private send(calls: ReadonlyArray<Pending>, place: Place): void {
    const wanted = calls.toSorted(byKey)
    const sent: Array<Pending> = []
    const write = (session: Session): ReadonlyArray<unknown> | undefined => {
      const columns: Array<Array<unknown>> = []
      const sentAt = this.client.now()
      for (const pending of this.inTime(wanted, sentAt)) {
        const row = pending.call.write(session, sentAt)
        if (row === undefined) this.end(pending, undefined, undefined)
        else {
          row.forEach((value, column) => (columns[column] ??= []).push(value))
          sent.push(pending)
        }
      }
      return sent.length === 0 ? undefined : [...this.first(), ...columns]
    }
    this.client.send(this.text, write, (answer) => {
      if (Result.isSuccess(answer)) return this.answer(sent, answer.success)
      const { failure } = answer
      const error = sqlErrorOf(failure)
      if (error !== undefined && failure.sent && errors.isRefusal(error)) sent.forEach(({ call }) => call.settled())
      this.fail(this.inTime(failure.sent ? sent : wanted, this.client.now()), failure, place)
    })
  }

  private answer(calls: ReadonlyArray<Pending>, rows: Rows): void {
    // Rows come in the order of the calls, and not every call has one; number 0 is for all of them.
    let next = 0
    calls.forEach((pending, i) => {
      const row = rows[next]
      const isItsRow = row?.[0] === i + 1
      if (isItsRow) next++
      pending.call.settled()
      this.end(pending, isItsRow || row?.[0] === 0 ? row : undefined, undefined)
    })
  }

  /** Ends calls that failed, or sends them again. */
  private fail(calls: ReadonlyArray<Pending>, failure: Failure, place: Place): void {
    const error = sqlErrorOf(failure)
    const isOfOneKey = error !== undefined && errors.mayBeOfOneKey(error)
    const isSentAgain = error !== undefined && (errors.passes(error) || (isOfOneKey && calls.length > 1))
    if (!isSentAgain) return calls.forEach((pending) => this.end(pending, undefined, failure))
    if (calls.length === 0) return
    for (const pending of calls) pending.before = failure
    // A row that stays locked holds up the calls of its key; a server that refuses everything gets no more statements.
    if (isOfOneKey) this.leave(place)
    if (isOfOneKey && calls.length > 1) calls.forEach((pending) => this.send([pending], place))
    // Also when the layer closes: then they fail.
    else this.client.fork(Effect.sleep(pause)).addObserver(() => this.send(calls, place))
  }
}
