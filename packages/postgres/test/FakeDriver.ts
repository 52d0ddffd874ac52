/**
 * A driver without a server: a test says what every statement is answered.
 */
import { Errors } from "@dlock/core/backend"
import { Effect, Queue } from "effect"
import { ConnectionError, SqlError, UnknownError } from "effect/sql/SqlError"
import type { Driver, Rows } from "../src/internal/client.ts"
import * as clients from "../src/internal/client.ts"

/** A statement, and the session on which it was sent, counted from 1. */
export interface Asked {
  readonly text: string
  readonly params: ReadonlyArray<unknown>
  readonly session: number
}

export type Server = (asked: Asked) => Effect.Effect<Rows, SqlError>

/** What the server refuses with. */
export const refusal = (code: string) =>
  new SqlError({ reason: new UnknownError({ cause: Object.assign(new Error("words"), { code }) }) })

/** Of what was asked on a connection that has ended. */
const ended = new SqlError({ reason: new ConnectionError({ cause: new Error("the connection has ended") }) })

/** The column of the keys, or of whatever is first, of a statement that is joined. */
export const firstColumn = ({ params: [first] }: Asked): ReadonlyArray<unknown> => Array.isArray(first) ? first : []

/** A client over the fake, and what was asked of it. Messages arrive. */
export const make = Effect.fnUntraced(function*(server: Server, limit = 5000) {
  const asked: Array<Asked> = []
  const predecessors: Array<string | undefined> = []
  const messages = yield* Queue.unbounded<{ processId: number, channel: string, payload: string }, SqlError>()
  const fake = {
    asked,
    /** Of each session that was opened: the one that went silent before. */
    predecessors,
    server,
    /** What comes before a session is open, and before it listens. */
    opening: Effect.void as Effect.Effect<void, SqlError>,
    listening: Effect.void as Effect.Effect<void, SqlError>
  }
  const answer = (question: Asked): Effect.Effect<Rows, SqlError> =>
    Effect.suspend(() => {
      asked.push(question)
      if (!question.text.includes("pg_notify")) return fake.server(question)
      Queue.offerUnsafe(messages, { processId: 1, channel: "", payload: "test " })
      return Effect.succeed([[]])
    })
  const driver: Driver = {
    address: "db:5432",
    errors: Errors.make("postgres"),
    outside: (context) => context,
    open: Effect.fnUntraced(function*(predecessor) {
      const session = predecessors.push(predecessor)
      yield* fake.opening
      const closed = yield* Effect.acquireRelease(
        Queue.unbounded<never, SqlError>(),
        (queue) => Queue.fail(queue, ended)
      )
      return {
        name: `session ${session}`,
        inOrder: true,
        query: (text, params) => Effect.raceFirst(answer({ text, params, session }), Queue.take(closed)),
        transact: () => Effect.die("not asked in these tests")
      }
    }),
    listen: () => Effect.as(Effect.suspend(() => fake.listening), messages)
  }
  return { fake, client: yield* clients.make(driver, limit) }
})
