/**
 * The requests to etcd. Of the driver it uses the connection and the generated calls. What it works around, by doing it
 * here:
 *
 * - The circuit breaker turns half a second of outage into five of refusal, and unary calls are sent again blindly:
 *   both are switched off, and every request of this backend may be sent twice.
 * - Calls have no deadline: each try has one.
 * - A connection that went silent stays in use, or is shared with other clients of the process: a try that ran out of
 *   time gives its connection up, and the next one gets a new connection, to the next endpoint.
 * - `Lease` counts from the answer and reports a loss after twice the ttl: a keepalive is one request with one answer,
 *   counted from the instant it was sent, and the session has its own deadline.
 * - The watch manager loses events over two reconnects and throws within stream handlers: one bare watch stream.
 * - A login is part of the first try on every connection, and its time: `login.ts` is one for all.
 */
import { Timers } from "@dlock/core/backend"
import type { LockBackendError } from "@dlock/core/LockError"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type {
  Etcd3,
  ILeaseKeepAliveResponse,
  ILeaseRevokeResponse,
  ILeaseTimeToLiveResponse,
  IRangeRequest,
  IRangeResponse,
  IStatusResponse,
  ITxnRequest,
  ITxnResponse,
  IWatchRequest,
  IWatchResponse
} from "etcd3"
import {
  anyRange,
  ask,
  call,
  type CallOptions,
  callOptions,
  givenLogin,
  type Limits,
  otherClusterIn,
  type Run,
  type State
} from "./calls.ts"
import * as connection from "./connection.ts"
import type { Connection, Connections, Settings } from "./connection.ts"
import * as errors from "./errors.ts"
import type { LeaseGone } from "./errors.ts"
import * as login from "./login.ts"

/** A lease as the server granted or prolonged it. `ttl` is seconds; not positive: it does not exist. */
export interface LeaseAnswer {
  readonly id: string
  readonly ttl: number
  /** Monotonic milliseconds, just before the request was sent that was answered. */
  readonly sentAt: number
}

/** Where the messages of a watch stream go. */
export interface WatchSink {
  readonly message: (response: IWatchResponse) => void
  /** The stream is over; the last call. */
  readonly broken: () => void
}

export interface WatchStream {
  readonly write: (request: IWatchRequest) => void
  readonly close: () => void
  /** Closes it and does not use its connection again. */
  readonly discard: () => void
  /** The server refused a watch: closes it when a call has told whether the token ran out, which sticks to a stream. */
  readonly refused: (limits: Limits) => void
}

export interface EtcdClient {
  /** The caller opened it. */
  readonly isGiven: boolean
  /** Monotonic time. */
  readonly now: () => number
  /** Asks a question that a quorum must answer. */
  readonly probe: (limits: Limits) => Effect.Effect<void, LockBackendError>
  /** The version of the member in use. */
  readonly version: (limits: Limits) => Effect.Effect<string, LockBackendError>
  readonly grant: (seconds: number, limits: Limits) => Effect.Effect<LeaseAnswer, LockBackendError>
  readonly keepAlive: (id: string, limits: Limits) => Effect.Effect<LeaseAnswer, LockBackendError>
  /** Also succeeds when there is no such lease. */
  readonly revoke: (id: string, limits: Limits) => Effect.Effect<void, LockBackendError>
  /** The keys on a lease; none when there is no such lease. */
  readonly keysOf: (id: string, limits: Limits) => Effect.Effect<ReadonlySet<string>, LockBackendError>
  /** What a lease has left, in milliseconds; zero when there is no such lease. */
  readonly remaining: (id: string, limits: Limits) => Effect.Effect<number, LockBackendError>
  readonly range: (
    operation: string,
    request: IRangeRequest,
    limits: Limits
  ) => Effect.Effect<IRangeResponse, LockBackendError>
  readonly txn: (
    operation: string,
    request: ITxnRequest,
    limits: Limits
  ) => Effect.Effect<ITxnResponse, LockBackendError>
  /** A transaction that puts keys on a lease. */
  readonly txnOnLease: (
    operation: string,
    request: ITxnRequest,
    limits: Limits
  ) => Effect.Effect<ITxnResponse, LockBackendError | LeaseGone>
  readonly watch: (sink: WatchSink) => WatchStream
}

/** One request and one answer on a stream of their own, which then ends. */
const keepAliveOnce = (driver: Etcd3, id: string, options: CallOptions): Promise<ILeaseKeepAliveResponse> =>
  driver.leaseClient.leaseKeepAlive(options).then((stream) =>
    new Promise((resolve, reject) => {
      stream.on("data", resolve)
      stream.on("error", reject)
      stream.on("end", () => reject(new Error("14 UNAVAILABLE: the stream ended without an answer")))
      stream.write({ ID: id })
      stream.end()
    })
  )

type Found = ILeaseTimeToLiveResponse

const noop = (): void => {}

type Fork = (effect: Effect.Effect<unknown>) => unknown

const watch = (state: State, fork: Fork, sink: WatchSink): WatchStream => {
  const unsent: Array<IWatchRequest> = []
  let write = (request: IWatchRequest): void => void unsent.push(request)
  let hangUp = noop
  let connection: Connection | undefined
  let isOpen = true
  let isRefused = false
  const close = (): void => {
    if (!isOpen) return
    isOpen = false
    connection?.streams.delete(close)
    hangUp()
    sink.broken()
  }
  const discard = (): void => {
    if (connection === undefined) close()
    else state.connections.discard(connection)
  }
  const onMessage = (response: IWatchResponse): void => {
    if (!isOpen) return
    if (otherClusterIn(state, response) === undefined) sink.message(response)
    else discard()
  }
  const open = (found: Connection): void => {
    if (!isOpen) return
    connection = found
    found.streams.add(close)
    found.driver.watchClient.watch(callOptions(state)).then((stream) => {
      stream.on("data", onMessage)
      stream.on("error", close)
      stream.on("end", close)
      hangUp = () => {
        // Ended before it is cancelled, or the driver takes the cancellation for a fault of the server.
        stream.end()
        stream.cancel()
      }
      if (!isOpen) return hangUp()
      write = (request) => stream.write(request)
      for (const request of unsent) write(request)
    }, close)
  }
  fork(Effect.match(state.connections.current, { onFailure: close, onSuccess: open }))
  return {
    write: (request) => write(request),
    close,
    discard,
    refused: (limits) => {
      if (isRefused) return
      isRefused = true
      fork(Effect.andThen(Effect.ignore(call(state, "watch", limits, anyRange)), Effect.sync(close)))
    }
  }
}

/** A request that has nothing to do with a lease. */
const unleased = <A>(
  operation: string,
  request: Effect.Effect<A, LockBackendError | LeaseGone>
): Effect.Effect<A, LockBackendError> =>
  request.pipe(Effect.catchTag("LeaseGone", () => Effect.fail(errors.toError(operation, errors.noLeaseAsked))))

/** What is sent, with the moment just before. */
const timed = <A>({ timers }: State, send: () => PromiseLike<A>) => {
  const sentAt = timers.now()
  return send().then((answer) => ({ ...answer, sentAt }))
}

/** The requests that concern leases. */
const leaseRequests = (
  state: State
): Pick<EtcdClient, "grant" | "keepAlive" | "revoke" | "keysOf" | "remaining"> => {
  const onLease = (id: string, ttl: number, sentAt: number): LeaseAnswer => {
    state.boundUntil = Math.max(state.boundUntil, sentAt + ttl * 1000)
    return { id, ttl, sentAt }
  }
  const gone = (id: string): LeaseAnswer => ({ id, ttl: 0, sentAt: state.timers.now() })
  const look = <A>(
    operation: string,
    id: string,
    keys: boolean,
    limits: Limits,
    absent: A,
    answer: (found: Found) => A
  ) =>
    ask(
      state,
      operation,
      limits,
      () => absent,
      (driver, options) => driver.leaseClient.leaseTimeToLive({ ID: id, keys }, options),
      answer
    )
  return {
    grant: (seconds, limits) =>
      ask(
        state,
        "open a session",
        limits,
        () => gone("0"),
        (driver, options) => timed(state, () => driver.leaseClient.leaseGrant({ TTL: seconds }, options)),
        ({ ID, TTL, sentAt }) => onLease(ID, Number(TTL), sentAt)
      ),
    keepAlive: (id, limits) =>
      ask(
        state,
        "renew",
        limits,
        () => gone(id),
        (driver, options) => timed(state, () => keepAliveOnce(driver, id, options)),
        ({ TTL, sentAt }) => onLease(id, Number(TTL), sentAt)
      ),
    revoke: (id, limits) => {
      const run: Run<ILeaseRevokeResponse> = (driver, options) => driver.leaseClient.leaseRevoke({ ID: id }, options)
      return ask(state, "close a session", limits, noop, run, noop)
    },
    keysOf: (id, limits) =>
      look(
        "look after a session",
        id,
        true,
        limits,
        new Set<string>(),
        ({ keys }) => new Set(keys.map((key) => key.toString("utf8")))
      ),
    remaining: (id, limits) => look("inspect", id, false, limits, 0, ({ TTL }) => Math.max(Number(TTL), 0) * 1000)
  }
}

const memberStatus: Run<IStatusResponse> = (driver, options) => driver.maintenance.status(options)

/** The requests that concern keys and the member itself. */
const storeRequests = (state: State): Pick<EtcdClient, "probe" | "version" | "range" | "txn" | "txnOnLease"> => {
  const txnOnLease: EtcdClient["txnOnLease"] = (operation, request, limits) =>
    call(state, operation, limits, (driver, options) => driver.kv.txn(request, options))
  return {
    probe: (limits) =>
      ask(state, "connect", limits, noop, anyRange, noop).pipe(Effect.catchIf(errors.isForbidden, () => Effect.void)),
    version: (limits) => ask(state, "connect", limits, () => "", memberStatus, ({ version }) => version),
    range: (operation, request, limits) =>
      unleased(operation, call(state, operation, limits, (driver, options) => driver.kv.range(request, options))),
    txn: (operation, request, limits) => unleased(operation, txnOnLease(operation, request, limits)),
    txnOnLease
  }
}

const make = Effect.fnUntraced(function*(
  connections: Connections,
  settings: Settings["login"]
): Effect.fn.Return<EtcdClient, never, Scope.Scope> {
  const timers = yield* Timers.make
  const scope = yield* Effect.scope
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const bare = { connections, timers, cluster: undefined, boundUntil: 0, login: undefined }
  const own = settings === undefined ? undefined : yield* login.make(connections, settings)
  const state: State = { ...bare, login: connections.isGiven ? givenLogin(bare) : own }
  return {
    isGiven: connections.isGiven,
    now: timers.now,
    ...leaseRequests(state),
    ...storeRequests(state),
    watch: (sink) => watch(state, (effect) => run(Effect.forkIn(effect, scope)), sink)
  }
})

/** A client of our own, closed with the scope. */
export const open = (settings: Settings): Effect.Effect<EtcdClient, never, Scope.Scope> =>
  Effect.flatMap(connection.open(settings), (connections) => make(connections, settings.login))

/** A client that the caller opened. Its endpoints and fault handling are the caller's. */
export const of = (driver: Etcd3): Effect.Effect<EtcdClient, never, Scope.Scope> =>
  make(connection.of(driver), undefined)
