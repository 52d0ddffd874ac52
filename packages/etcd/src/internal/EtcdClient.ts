/**
 * The edge to the driver: the only file that calls it (`EtcdHosts` opens and closes its clients). Of the driver it uses
 * the connection, the authentication and the generated calls. What it works around, by doing it here:
 *
 * - The circuit breaker turns half a second of outage into five of refusal, and unary calls are sent again blindly:
 *   both are switched off, and every request of this backend may be sent twice.
 * - Calls have no deadline: each try has one, of ours and of gRPC's.
 * - A connection that went silent stays in use, or is shared with other clients of the process: a try that ran out of
 *   time condemns its client, and the next one gets a new connection, to the next endpoint.
 * - `Lease` counts from the answer and reports a loss after twice the ttl: a keepalive is one request with one answer,
 *   counted from the instant it was sent, and the session has its own deadline.
 * - The watch manager loses events over two reconnects and throws within stream handlers: one bare watch stream.
 */
import type { LockBackendError } from "@dlock/core/LockError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type {
  Etcd3,
  ILeaseKeepAliveResponse,
  ITxnRequest,
  ITxnResponse,
  IWatchRequest,
  IWatchResponse,
  KVClient
} from "etcd3"
import * as EtcdDeadlines from "./EtcdDeadlines.ts"
import { classify, type Failure, type LeaseGone, noLeaseAsked, timedOut, toError } from "./EtcdFailure.ts"
import type { Connection, Hosts } from "./EtcdHosts.ts"
import * as EtcdHosts from "./EtcdHosts.ts"

type CallOptions = NonNullable<Parameters<KVClient["txn"]>[1]>

type Run<A> = (client: Etcd3, options: CallOptions) => PromiseLike<A>

/** How long a call may take, in milliseconds, and what is to be known of it. */
export interface Limits {
  /** All tries together. */
  readonly total: number
  /** One try; default: what lets two or three be had, on other endpoints or at least other connections. */
  readonly each?: number | undefined
  /** Called for every try whose outcome stays unknown. */
  readonly onDoubt?: (() => void) | undefined
}

/** A lease as the server granted or prolonged it. `ttl` is seconds; zero: it does not exist. */
export interface LeaseAnswer {
  readonly id: string
  readonly ttl: number
  /** Monotonic nanoseconds, just before the request was sent that was answered. */
  readonly sentAt: bigint
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
  readonly condemn: () => void
}

export interface EtcdClient {
  /** Asks a question that a quorum must answer. */
  readonly probe: (limits: Limits) => Effect.Effect<void, LockBackendError>
  readonly grant: (seconds: number, limits: Limits) => Effect.Effect<LeaseAnswer, LockBackendError>
  readonly keepAlive: (id: string, limits: Limits) => Effect.Effect<LeaseAnswer, LockBackendError>
  /** Also succeeds when there is no such lease. */
  readonly revoke: (id: string, limits: Limits) => Effect.Effect<void, LockBackendError>
  /** The keys on a lease; none when there is no such lease. */
  readonly keysOf: (id: string, limits: Limits) => Effect.Effect<ReadonlySet<string>, LockBackendError>
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
const keepAliveOnce = (client: Etcd3, id: string, options: CallOptions): Promise<ILeaseKeepAliveResponse> =>
  client.leaseClient.leaseKeepAlive(options).then((stream) =>
    new Promise((resolve, reject) => {
      stream.on("data", resolve)
      stream.on("error", reject)
      stream.on("end", () => reject(new Error("14 UNAVAILABLE: the stream ended without an answer")))
      stream.write({ ID: id })
      stream.end()
    })
  )

const noop = (): void => {}

const anyKey = Buffer.from("\0", "utf8")

const firstPause = 20
const longestPause = 500

const make = Effect.fnUntraced(function*(hosts: Hosts): Effect.fn.Return<EtcdClient, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const nowMillis = (): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const deadlines = yield* EtcdDeadlines.make(nowMillis)

  /** One try on the host of now. */
  const once = <A>(patience: number, onDoubt: Limits["onDoubt"], run: Run<A>): Effect.Effect<A, Failure | LeaseGone> =>
    Effect.callback((resume) => {
      const host = hosts.current()
      const fail = (failure: Failure | LeaseGone): void => {
        if (failure._tag === "Failure") {
          if (failure.broken) hosts.condemn(host)
          if (failure.doubtful) onDoubt?.()
        }
        resume(Effect.fail(failure))
      }
      const deadline = { at: nowMillis() + patience, expire: () => fail(timedOut(patience)) }
      deadlines.add(deadline)
      run(host.client, { deadline: clock.currentTimeMillisUnsafe() + patience }).then(
        (value) => {
          if (deadlines.delete(deadline)) resume(Effect.succeed(value))
        },
        (error) => {
          if (deadlines.delete(deadline)) fail(classify(error))
        }
      )
      return Effect.sync(() => deadlines.delete(deadline))
    })

  const call = <A>(
    operation: string,
    limits: Limits,
    run: Run<A>
  ): Effect.Effect<A, LockBackendError | LeaseGone> => {
    const each = limits.each ?? limits.total / (hosts.count < 3 ? 2 : 3)
    const end = nowMillis() + limits.total
    const attempt = (tries: number): Effect.Effect<A, LockBackendError | LeaseGone> =>
      Effect.catch(once(Math.max(Math.min(each, end - nowMillis()), 1), limits.onDoubt, run), (failure) => {
        if (failure._tag === "LeaseGone") return Effect.fail(failure)
        const pause = tries < hosts.count ? 0 : Math.min(firstPause * 2 ** (tries - hosts.count), longestPause)
        if (!failure.transient || nowMillis() + pause + 1 >= end) return Effect.fail(toError(operation, failure))
        return Effect.flatMap(pause === 0 ? Effect.yieldNow : Effect.sleep(pause), () => attempt(tries + 1))
      })
    return attempt(1)
  }

  /** A call in which the absence of a lease is an answer like others. */
  const ask = <A>(
    operation: string,
    limits: Limits,
    absent: () => A,
    run: Run<A>
  ): Effect.Effect<A, LockBackendError> =>
    Effect.suspend(() => call(operation, limits, run)).pipe(Effect.catchTag("LeaseGone", () => Effect.sync(absent)))

  const watch = (sink: WatchSink): WatchStream => {
    const host = hosts.current()
    const unsent: Array<IWatchRequest> = []
    let write = (request: IWatchRequest): void => void unsent.push(request)
    let hangUp = noop
    const close = (): void => {
      if (!host.streams.delete(close)) return
      hangUp()
      sink.broken()
    }
    host.streams.add(close)
    host.client.watchClient.watch().then((stream) => {
      stream.on("data", (response) => host.streams.has(close) && sink.message(response))
      stream.on("error", close)
      stream.on("end", close)
      hangUp = () => {
        // Ended before it is cancelled, or the driver takes the cancellation for a fault of the server.
        stream.end()
        stream.cancel()
      }
      if (!host.streams.has(close)) return hangUp()
      write = (request) => stream.write(request)
      for (const request of unsent) write(request)
    }, close)
    return { write: (request) => write(request), close, condemn: () => hosts.condemn(host) }
  }

  const txn = (operation: string, request: ITxnRequest, limits: Limits) =>
    Effect.suspend(() => call(operation, limits, (client, options) => client.kv.txn(request, options)))

  const gone = (id: string): LeaseAnswer => ({ id, ttl: 0, sentAt: clock.monotonicTimeNanosUnsafe() })

  return {
    probe: (limits) =>
      ask("connect", limits, noop, (client, options) => client.kv.range({ key: anyKey }, options).then(noop)).pipe(
        Effect.catchIf(isForbidden, () => Effect.void)
      ),
    grant: (seconds, limits) =>
      ask("open a session", limits, () => gone("0"), (client, options) => {
        const sentAt = clock.monotonicTimeNanosUnsafe()
        return client.leaseClient.leaseGrant({ TTL: seconds }, options)
          .then(({ ID, TTL }) => ({ id: ID, ttl: Number(TTL), sentAt }))
      }),
    keepAlive: (id, limits) =>
      ask("renew", limits, () => gone(id), (client, options) => {
        const sentAt = clock.monotonicTimeNanosUnsafe()
        return keepAliveOnce(client, id, options).then(({ TTL }) => ({ id, ttl: Number(TTL), sentAt }))
      }),
    revoke: (id, limits) =>
      ask(
        "close a session",
        limits,
        noop,
        (client, options) => client.leaseClient.leaseRevoke({ ID: id }, options).then(noop)
      ),
    keysOf: (id, limits) =>
      ask(
        "look after a session",
        limits,
        () => new Set<string>(),
        (client, options) =>
          client.leaseClient.leaseTimeToLive({ ID: id, keys: true }, options)
            .then(({ keys }) => new Set(keys.map((key) => key.toString("utf8"))))
      ),
    txn: (operation, request, limits) =>
      txn(operation, request, limits).pipe(
        Effect.catchTag("LeaseGone", () => Effect.fail(toError(operation, noLeaseAsked)))
      ),
    txnOnLease: txn,
    watch
  }
})

/** Rights are given per key: being refused one key is an answer of a quorum to a known user. */
const isForbidden = (error: LockBackendError): boolean => /permission denied/.test(error.detail ?? "")

/** A client of our own, closed with the scope. */
export const open = (connection: Connection): Effect.Effect<EtcdClient, LockBackendError, Scope.Scope> =>
  Effect.flatMap(EtcdHosts.open(connection), make)

/** A client that somebody else opened. Its host and fault handling are its owner's. */
export const of = (client: Etcd3): Effect.Effect<EtcdClient, never, Scope.Scope> => make(EtcdHosts.of(client))
