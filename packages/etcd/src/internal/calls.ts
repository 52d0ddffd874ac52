/**
 * How a request is sent: within a time limit, again on another connection when that may help, with the login and the
 * identity of the cluster looked after.
 */
import { Calls, type Timers } from "@dlock/core/backend"
import type { LockBackendError } from "@dlock/core/LockError"
import { InterceptingCall, type Interceptor } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { Etcd3, IRangeResponse, IResponseHeader, KVClient } from "etcd3"
import { type Connection, type Connections, grpcDeadline } from "./connection.ts"
import * as errors from "./errors.ts"
import { type Failure, LeaseGone } from "./errors.ts"
import type { Login } from "./login.ts"

export type CallOptions = NonNullable<Parameters<KVClient["txn"]>[1]>

export interface Answer {
  /** A proxy may leave it out. */
  readonly header?: IResponseHeader | null
}

export type Run<A extends Answer> = (driver: Etcd3, options: CallOptions) => PromiseLike<A>

/** How long a request may take, in milliseconds, and what is to be known of it. */
export interface Limits {
  /** All tries together. */
  readonly total: number
  /** One try; default: what lets two or three be made, on other endpoints or at least other connections. */
  readonly each?: number | undefined
  /** Called for every try whose outcome stays unknown. */
  readonly onUnknown?: (() => void) | undefined
}

const anyKey = Buffer.from("\0", "utf8")

export const anyRange: Run<IRangeResponse> = (driver, options) => driver.kv.range({ key: anyKey }, options)

/** Of a try's time: with less, the last one would fail for want of time and condemn a connection that is well. */
const leastShare = 1 / 8

/**
 * By how much an answer may be later than gRPC's deadline, in milliseconds: of gRPC itself, which tells whether the
 * request was sent, and of the policies of a client of the caller's own.
 */
const grace = 1000
const givenGrace = 100

/** The driver sends a request with a stale token again and again, without a pause, when it reads this of the server. */
const staleToken = "invalid auth token"

/**
 * What every request of ours carries. With `hasleader` a member that has no leader refuses at once, and ends its
 * streams, instead of keeping them without an answer.
 */
const marked = (state: State): Interceptor => (options, next) => {
  const token = state.login?.token()
  return new InterceptingCall(next(options), {
    start: (metadata, listener, start) => {
      const own = metadata.clone()
      own.set("hasleader", "true")
      if (token !== undefined) own.set("token", token)
      if (state.connections.isGiven) return start(own, listener)
      start(own, {
        onReceiveStatus: (status, next) =>
          next({ ...status, details: status.details.replace(staleToken, errors.staleToken) })
      })
    }
  })
}

/** What requests need to know of their layer. */
export interface State {
  readonly connections: Connections
  readonly login: Login | undefined
  readonly timers: Timers.Timers
  /** The cluster that answers, by its identity. */
  cluster: string | undefined
  /** Until the last lease that it granted has ended, another cluster is not believed. */
  boundUntil: number
}

export const callOptions = (state: State): CallOptions => ({ interceptors: [marked(state)] })

/** Tells of an answer of another cluster: a second address, or a name that was switched. */
export const otherClusterIn = (state: State, { header }: Answer): Failure | undefined => {
  const id = header?.cluster_id ?? "0"
  // A proxy need not tell.
  if (id === "0" || id === state.cluster) return undefined
  if (state.cluster !== undefined && state.timers.now() < state.boundUntil) {
    return errors.otherCluster(id, state.cluster)
  }
  state.cluster = id
  return undefined
}

/** One try on one connection. */
const once = <A extends Answer>(
  state: State,
  { answered, driver }: Connection,
  patience: number,
  run: Run<A>
): Effect.Effect<A, Failure | LeaseGone> => {
  const call = Calls.once<A, Failure | LeaseGone>(state.timers, {
    limit: patience + (state.connections.isGiven ? givenGrace : grace),
    send: (settle) => {
      run(driver, { ...callOptions(state), deadline: grpcDeadline(patience) }).then(
        (answer) => {
          const failure = otherClusterIn(state, answer)
          settle(failure === undefined ? Exit.succeed(answer) : Exit.fail(failure))
        },
        (error) => settle(Exit.fail(errors.classify(error)))
      )
    },
    onLate: () => errors.timedOut(patience)
  })
  return Effect.mapError(call, (failure) =>
    // A server that never said anything may not be there at all.
    failure._tag === "Failure" && failure.reason === "Timeout" && !answered
      ? { ...failure, reason: "Unreachable" as const }
      : failure)
}

/** What a try failed with, and where. */
interface Tried {
  readonly failure: Failure | LeaseGone
  readonly address?: string | undefined
}

const passes = ({ failure }: Tried): boolean => failure._tag === "Failure" && failure.passes

const isLate = ({ failure }: Tried): boolean => failure._tag === "Failure" && failure.late

/** One try on the connection of now, and what it tells of that connection. */
const attempt = <A extends Answer>(
  state: State,
  patience: number,
  { onUnknown }: Limits,
  run: Run<A>
): Effect.Effect<A, Tried> =>
  Effect.flatMap(
    Effect.mapError(state.connections.current, (failure) => ({ failure })),
    (connection) => {
      const fail = (failure: Failure | LeaseGone) => Effect.fail({ failure, address: connection.address })
      return Effect.matchEffect(once(state, connection, patience, run), {
        onSuccess: (answer) => {
          connection.answered = true
          return Effect.succeed(answer)
        },
        onFailure: (failure) => {
          if (failure._tag === "LeaseGone") return confirmGone(state, connection, patience, fail)
          if (failure.unknown) onUnknown?.()
          if (!failure.broken) connection.answered = true
          // While a login is on its way, the server may be busy with the logins of many.
          else if (failure.reason !== "Timeout" || state.login?.isRunning() !== true) {
            state.connections.discard(connection)
          }
          return fail(failure)
        }
      })
    }
  )

/** An error has no header, and every cluster but ours does not have our leases. */
const confirmGone = <E>(
  state: State,
  connection: Connection,
  patience: number,
  fail: (failure: Failure | LeaseGone) => Effect.Effect<never, E>
): Effect.Effect<never, E> =>
  Effect.matchEffect(once(state, connection, patience, anyRange), {
    onSuccess: () => fail(new LeaseGone()),
    onFailure: (failure) => {
      if (failure._tag === "LeaseGone" || !failure.passes) return fail(new LeaseGone())
      state.connections.discard(connection)
      return fail(failure)
    }
  })

/** Logs in when a try was refused for want of that, so that the next one may pass. */
const loggedIn = <A>({ login }: State, left: number, attempt: Effect.Effect<A, Tried>): Effect.Effect<A, Tried> =>
  Effect.suspend(() => {
    const token = login?.token()
    return Effect.catch(attempt, (tried) => {
      if (tried.failure._tag === "LeaseGone" || !tried.failure.login || login === undefined) return Effect.fail(tried)
      const passing = { ...tried, failure: { ...tried.failure, passes: true } }
      return Effect.matchEffect(Effect.timeoutOption(login.renew(token), left), {
        onFailure: (failure) => Effect.fail({ ...tried, failure }),
        onSuccess: (renewed) =>
          Effect.fail(Option.isSome(renewed) ? passing : { ...tried, failure: errors.loginPending })
      })
    })
  })

/** A request with all of its tries. */
export const call = <A extends Answer>(
  state: State,
  operation: string,
  limits: Limits,
  run: Run<A>
): Effect.Effect<A, LockBackendError | LeaseGone> => {
  const { connections: { count: ways }, timers } = state
  const each = limits.each ?? limits.total / (ways < 3 ? 2 : 3)
  const least = Math.min(each, limits.total) * leastShare
  const repetition = { limit: limits.total - least, ways, again: passes, late: isLate }
  const tries = Calls.repeat(timers, repetition, (left) => {
    const time = left + least
    return loggedIn(state, time, attempt(state, Math.min(each, time), limits, run))
  })
  return Effect.mapError(
    tries,
    ({ address, failure }) => failure._tag === "LeaseGone" ? failure : errors.toError(operation, failure, address)
  )
}

/** A request in which the absence of a lease is an answer like others. */
export const ask = <A extends Answer, B>(
  state: State,
  operation: string,
  limits: Limits,
  absent: () => B,
  run: Run<A>,
  answer: (answer: A) => B
): Effect.Effect<B, LockBackendError> =>
  call(state, operation, limits, run).pipe(
    Effect.map(answer),
    Effect.catchTag("LeaseGone", () => Effect.sync(absent))
  )

/** As the driver logs in by itself when a unary call is refused, but not for a stream. */
export const givenLogin = (state: Omit<State, "login">): Login => ({
  token: () => undefined,
  isRunning: () => false,
  renew: () =>
    Effect.flatMap(state.connections.current, (connection) =>
      Effect.catch(
        Effect.asVoid(once({ ...state, login: undefined }, connection, longestLogin, anyRange)),
        (failure) => failure._tag === "LeaseGone" || !failure.login ? Effect.void : Effect.fail(failure)
      ))
})

const longestLogin = 5000
