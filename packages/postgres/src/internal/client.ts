/**
 * The driver at the edge: connects, asks within a time limit, connects again. Nothing else asks the driver.
 *
 * A client of our own has one session, on which statements are pipelined, and drops it when the connection breaks, when
 * nothing is answered in time, or when the server turns out to be a standby. The client of an application keeps its pool.
 */
import type { LockBackendError } from "@dlock/core"
import { Calls, Errors, Timers } from "@dlock/core/backend"
import type { PgClient } from "@effect/sql-pg"
import { PgConnection } from "@effect/sql-pg"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import type * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import { ConnectionError, SqlError } from "effect/sql/SqlError"
import * as Crypto from "node:crypto"
import * as errors from "./errors.ts"
import { wrongIsolation } from "./schema.ts"

/** The pause before what was refused for a moment is asked again, in milliseconds. */
export const pause = 50

/** The rows of an answer, by position. */
export type Rows = ReadonlyArray<ReadonlyArray<unknown>>

/** Statements go to one session in order, so what is answered proves that those before it are over. */
export interface Session {
  readonly query: (text: string, params: ReadonlyArray<unknown>, prepare: boolean) => Effect.Effect<Rows, SqlError>
  /** The same in a transaction that is READ COMMITTED, where the server's default is another one. */
  readonly transact: (text: string, params: ReadonlyArray<unknown>) => Effect.Effect<Rows, SqlError>
  /** Whether messages sent here arrive in order; not so in a pool. */
  readonly inOrder: boolean
}

/** What the driver says; or what is wrong with a password or a certificate, which are read at each connect. */
export type Trouble = SqlError | LockBackendError

/** How sessions are opened. */
export interface Driver {
  readonly address: string
  readonly errors: Errors.Errors
  /** A context without the transaction that a caller of the same client may be in. */
  readonly outside: (context: Context.Context<never>) => Context.Context<never>
  /** `predecessor`: the name of a session that went silent. */
  readonly open: (predecessor: string | undefined) => Effect.Effect<OpenSession, Trouble, Scope.Scope>
  /** Messages to a channel, on a connection of its own. */
  readonly listen: (
    channel: string
  ) => Effect.Effect<Queue.Dequeue<PgConnection.Notification, SqlError>, Trouble, Scope.Scope>
}

interface OpenSession extends Session {
  readonly name: string | undefined
}

const begin = "BEGIN ISOLATION LEVEL READ COMMITTED"

const overConnection = (name: string, connection: PgConnection.PgConnection): OpenSession => ({
  name,
  inOrder: true,
  query: connection.queryValues,
  transact: (text, params) =>
    Effect.scoped(
      Effect.flatMap(connection.pin, (pinned) =>
        Effect.andThen(pinned.queryValues(begin, []), pinned.queryValues(text, params, false)).pipe(
          Effect.tap(pinned.queryValues("COMMIT", [])),
          Effect.tapError(() =>
            Effect.ignore(pinned.queryValues("ROLLBACK", []))
          )
        ))
    )
})

const terminate =
  `select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1 and usename = current_user`

/**
 * Connections of our own. Each has a name, which operators see as its `application_name`: when one went silent, because
 * of the network or because its statement hangs, the next one ends what is left of it on the server.
 */
export const own = (
  config: Effect.Effect<PgConnection.Config, LockBackendError>,
  address: string,
  errors: Errors.Errors
): Driver => ({
  address,
  errors,
  outside: identity,
  open: Effect.fnUntraced(function*(predecessor) {
    const applicationName = `dlock ${Crypto.randomUUID()}`
    const connection = yield* PgConnection.make({ ...(yield* config), applicationName, multiplex: true })
    if (predecessor !== undefined) {
      // Not waited for: what is sent after it on this connection is executed after it.
      yield* Effect.forkScoped(Effect.ignore(connection.queryValues(terminate, [predecessor], false)), {
        startImmediately: true
      })
    }
    return overConnection(applicationName, connection)
  }),
  listen: (channel) => listenOn(config, channel)
})

/** Where a connection leads, for people. */
export const addressOf = (
  { host, port }: { readonly host?: string | undefined, readonly port?: number | undefined },
  url: string | undefined
): string => {
  const inUrl = URL.parse(url ?? "") ?? new URL("postgres://")
  const { hostname, port: portInUrl, searchParams } = inUrl
  const named = (searchParams.get("host") ?? hostname) || "localhost"
  return `${host ?? named}:${port ?? ((searchParams.get("port") ?? portInUrl) || 5432)}`
}

/** The client of an application, which it closes itself. */
export const given = (client: PgClient.PgClient): Driver => {
  const session: OpenSession = {
    name: undefined,
    inOrder: false,
    query: (text, params) => client.unsafe(text, params).values,
    transact: (text, params) =>
      Effect.provideService(
        client.withTransaction(client.unsafe(text, params).values),
        SqlClient.BeginTransaction,
        begin
      )
  }
  return {
    address: addressOf(client.config, client.config.url && Redacted.value(client.config.url)),
    errors: Errors.make(errors.backendName),
    outside: Context.omit(client.transactionService),
    open: () => Effect.succeed(session),
    listen: (channel) => listenOn(Effect.succeed(client.config), channel)
  }
}

/** The connection closes first: UNLISTEN on a dead one would be waited for without limit. */
const listenOn = Effect.fnUntraced(function*(
  config: Effect.Effect<PgConnection.Config, LockBackendError>,
  channel: string
) {
  const listening = yield* Scope.make()
  yield* Effect.addFinalizer((exit) => Effect.forkDetach(Scope.close(listening, exit)))
  const connection = yield* PgConnection.make({
    ...(yield* config),
    applicationName: "dlock listener",
    multiplex: false
  })
  return yield* Scope.provide(connection.listen(channel), listening)
})

/** How a statement fails. `sent`: it may have been written. */
type Unanswered =
  | { readonly _tag: "Failed", readonly sent: boolean, readonly error: Trouble }
  /** The layer closed meanwhile, or before. */
  | { readonly _tag: "Closed", readonly sent: boolean }
  | { readonly _tag: "Died", readonly sent: boolean, readonly defect: unknown }

/** How a call fails: its statement did, or its time was over. */
export type Failure = Unanswered | { readonly _tag: "Late", readonly limit: number }

const failureOf = (cause: Cause.Cause<Trouble>, sent: boolean): Unanswered => {
  const failed = Cause.findErrorOption(cause)
  if (Option.isSome(failed)) return { _tag: "Failed", sent, error: failed.value }
  return Cause.hasInterruptsOnly(cause) ? { _tag: "Closed", sent } : { _tag: "Died", sent, defect: Cause.squash(cause) }
}

/** The parameters of a statement, on this session. */
type Write = (session: Session) => ReadonlyArray<unknown> | undefined

/** The rows; none if nothing was wanted any more. */
type Answer = Result.Result<Rows, Unanswered>

/** The SqlError of a failure, if it is one. */
export const sqlErrorOf = (failure: Failure): SqlError | undefined =>
  failure._tag === "Failed" && failure.error._tag === "SqlError" ? failure.error : undefined

/** Of the last two failures of a request, the one that says more: a refusal, and not the end of its time. */
export const telling = (failure: Failure, before: Failure | undefined): Failure =>
  failure._tag === "Late" && before !== undefined ? before : failure

/** Opening took too long: another try may do better. */
const notOpened = (limit: number): SqlError =>
  new SqlError({ reason: new ConnectionError({ cause: new Error(`no connection within ${limit} ms`) }) })

/** A session that is open, and how it ends. */
interface Current {
  readonly session: OpenSession
  readonly scope: Scope.Closeable
  /** How many statements are not answered, and since when none was, in milliseconds of monotonic time. */
  unanswered: number
  silentSince: number
}

/** The longest silence of a session of which calls are late, in milliseconds; longer than our statements wait for a row. */
const maxSilence = 400

/** Asks a server. */
export class Client {
  readonly driver: Driver
  readonly limit: number
  /** The silence after which a session is dropped once a call is late, in milliseconds. */
  readonly silence: number
  readonly timers: Timers.Timers
  /** Monotonic time in milliseconds. */
  readonly now: () => number
  /** Runs in the background of the layer, with its context: a caller's transaction, tracer and interruption stay out. */
  readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  /** Whether statements are prepared, which a pooler does not stand. */
  prepare = false
  private readonly scope: Scope.Scope
  private current: Current | undefined
  private opening: Fiber.Fiber<Current, Trouble> | undefined
  private silent: string | undefined
  private isWrapped = false

  constructor(driver: Driver, limit: number, scope: Scope.Scope, timers: Timers.Timers, fork: Client["fork"]) {
    this.driver = driver
    this.limit = limit
    this.silence = Math.min(maxSilence, limit / 2)
    this.now = timers.now
    this.fork = fork
    this.scope = scope
    this.timers = timers
  }

  /** Opens something within the limit. The driver has one for connecting, and none for effects of a user or LISTEN. */
  opened<A>(opening: Effect.Effect<A, Trouble, Scope.Scope>, scope: Scope.Scope): Effect.Effect<A, Trouble> {
    return Effect.timeoutOrElse(Scope.provide(opening, scope), {
      duration: this.limit,
      orElse: () => Effect.fail(notOpened(this.limit))
    })
  }

  /** What a fiber of the background ends with; its interruption, when the layer closes, is none of the caller's. */
  join<A>(operation: string, fiber: Fiber.Fiber<A, LockBackendError>): Effect.Effect<A, LockBackendError> {
    return Effect.flatMap(
      Fiber.await(fiber),
      (exit) => Exit.hasInterrupts(exit) ? Effect.fail(this.toError(operation, { _tag: "Closed", sent: true })) : exit
    )
  }

  private openSession(): Fiber.Fiber<Current, Trouble> {
    if (this.opening !== undefined) return this.opening
    const opening = this.fork(this.open)
    this.opening = opening
    opening.addObserver(() => {
      if (this.opening === opening) this.opening = undefined
    })
    return opening
  }

  private readonly open: Effect.Effect<Current, Trouble> = Effect.gen({ self: this }, function*() {
    const scope = yield* Scope.fork(this.scope)
    const session = yield* this.opened(this.driver.open(this.silent), scope).pipe(
      Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
    )
    this.silent = undefined
    const current: Current = { session, scope, unanswered: 0, silentSince: 0 }
    this.current = current
    return current
  })

  private drop(current: Current, isSilent: boolean): void {
    const { scope, session } = current
    if (current !== this.current || session.name === undefined) return
    this.current = undefined
    if (isSilent) this.silent = session.name
    this.fork(Scope.close(scope, Exit.void))
  }

  /** A call was not answered in time: drops the session if none is. What is under way on it then fails. */
  suspect(): void {
    const { current } = this
    if (current === undefined || current.unanswered === 0) return
    if (this.now() - current.silentSince >= this.silence) this.drop(current, true)
  }

  private run(session: OpenSession, text: string, params: ReadonlyArray<unknown>): Effect.Effect<Rows, SqlError> {
    if (this.isWrapped) return session.transact(text, params)
    return Effect.catch(session.query(text, params, this.prepare), (error) => {
      if (errors.codeOf(error) !== wrongIsolation) return Effect.fail(error)
      this.isWrapped = true
      return session.transact(text, params)
    })
  }

  /**
   * Sends a statement. `write` gives the parameters when a session is there; `undefined`: nothing is wanted any more.
   * Calls back when it is answered, however late; because a fiber of its own costs as much as the rest.
   */
  send(text: string, write: Write, done: (answer: Answer) => void): void {
    if (this.current !== undefined) return this.sendOn(this.current, text, write, done)
    this.openSession().addObserver((opened) => {
      if (Exit.isSuccess(opened)) return this.sendOn(opened.value, text, write, done)
      done(Result.fail(failureOf(opened.cause, false)))
    })
  }

  private sendOn(current: Current, text: string, write: Write, done: (answer: Answer) => void): void {
    const params = write(current.session)
    if (params === undefined) return done(Result.succeed([]))
    if (current.unanswered++ === 0) current.silentSince = this.now()
    this.fork(this.run(current.session, text, params)).addObserver((answer) => {
      current.unanswered--
      current.silentSince = this.now()
      if (Exit.isSuccess(answer)) return done(Result.succeed(answer.value))
      const failure = failureOf(answer.cause, true)
      const error = sqlErrorOf(failure)
      if (error !== undefined && errors.endsSession(error)) this.drop(current, false)
      done(Result.fail(failure))
    })
  }

  toError(operation: string, failure: Failure): LockBackendError {
    const { address: at, errors: make } = this.driver
    switch (failure._tag) {
      case "Late":
        return make.timeout(operation, { at, detail: `no answer within ${failure.limit} ms` })
      case "Closed":
        return make.of("Closed", operation, { at })
      case "Died":
        return make.protocol(operation, { at, detail: "the driver failed", cause: failure.defect })
      case "Failed":
        return failure.error._tag === "SqlError"
          ? errors.toBackendError(make, operation, at, failure.error)
          : failure.error
    }
  }

  /** One statement of its own, which is asked again while the refusal passes and there is time. */
  question(
    operation: string,
    text: string,
    params: ReadonlyArray<unknown> = []
  ): Effect.Effect<Rows, LockBackendError> {
    const once = (end: number, last?: Failure): Effect.Effect<Rows, LockBackendError> => {
      const asked = Calls.once<Rows, Failure>(this.timers, {
        limit: end - this.now(),
        send: (settle) => {
          let isWanted = true
          this.send(
            text,
            () => isWanted ? params : undefined,
            (answer) => settle(Result.match(answer, { onFailure: Exit.fail, onSuccess: Exit.succeed }))
          )
          return () => {
            isWanted = false
          }
        },
        onLate: () => {
          this.suspect()
          return { _tag: "Late", limit: this.limit }
        }
      })
      return Effect.catch(asked, (failure) => {
        const error = sqlErrorOf(failure)
        return error !== undefined && errors.passes(error) && this.now() + pause < end
          ? Effect.andThen(Effect.sleep(pause), Effect.suspend(() => once(end, failure)))
          : Effect.fail(this.toError(operation, telling(failure, last)))
      })
    }
    return Effect.suspend(() => once(this.now() + this.limit))
  }
}

/** A client that ends with the scope. */
export const make = Effect.fnUntraced(
  function*(driver: Driver, limit: number): Effect.fn.Return<Client, never, Scope.Scope> {
    const scope = yield* Effect.scope
    const timers = yield* Timers.make
    const fibers = yield* FiberSet.make()
    const fork = yield* FiberSet.runtime(fibers)<never>().pipe(
      Effect.updateContext(driver.outside),
      Effect.withTracerEnabled(false)
    )
    return new Client(driver, limit, scope, timers, fork)
  }
)
