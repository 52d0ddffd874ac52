/**
 * The driver's clients: one at a time, for as long as its connection is trusted, to one endpoint after the other.
 */
import { LockBackendError } from "@dlock/core/LockError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import { Etcd3, type IOptions } from "etcd3"

/** One client of the driver for as long as its connection is trusted. */
export interface Host {
  readonly client: Etcd3
  readonly streams: Set<() => void>
}

/** The host in use, and what comes after it. */
export interface Hosts {
  readonly count: number
  readonly current: () => Host
  readonly condemn: (host: Host) => void
}

/** Who is told may open another one at once. */
const endStreams = (host: Host): void => {
  Array.from(host.streams).forEach((end) => end())
}

/** A policy that adds nothing: the driver's defaults are a circuit breaker and blind repetition. */
const plain: NonNullable<NonNullable<IOptions["faultHandling"]>["global"]> = {
  get _altReturn(): never {
    throw new Error("exists for the type checker only")
  },
  onSuccess: () => ({ dispose: () => {} }),
  onFailure: () => ({ dispose: () => {} }),
  execute: (fn, signal = new AbortController().signal) => Promise.resolve().then(() => fn({ signal }))
}

let incarnations = 0

/** Ping a silent connection. etcd hangs up on clients that ping more often than every 5 s. */
const pingEvery = 6000

const channelOptions = (): NonNullable<IOptions["grpcOptions"]> => ({
  "grpc.keepalive_time_ms": pingEvery,
  "grpc.keepalive_timeout_ms": 3000,
  "grpc.initial_reconnect_backoff_ms": 50,
  "grpc.max_reconnect_backoff_ms": 1000,
  "grpc.max_receive_message_length": -1,
  // Nobody reads gRPC's own statistics of every call.
  "grpc.enable_channelz": 0,
  // gRPC shares a connection among all clients of the process whose options are equal.
  "grpc.primary_user_agent": `dlock/${++incarnations}`
})

/** What the driver is told. */
export interface Connection {
  readonly endpoints: ReadonlyArray<string>
  readonly credentials: IOptions["credentials"]
  readonly auth: { readonly username: string, readonly password: string } | undefined
  /** Milliseconds. */
  readonly authTimeout: number
}

/** Clients of our own, closed with the scope. */
export const open = Effect.fnUntraced(function*(
  connection: Connection
): Effect.fn.Return<Hosts, LockBackendError, Scope.Scope> {
  const { auth, authTimeout, credentials, endpoints } = connection
  const clock = yield* Clock.Clock
  let next = yield* Random.nextIntBetween(0, endpoints.length, { halfOpen: true })
  const connect = (): Host => ({
    client: new Etcd3({
      hosts: endpoints[next++ % endpoints.length] ?? "",
      ...(credentials !== undefined && { credentials }),
      ...(auth !== undefined && {
        auth: { ...auth, callOptions: () => ({ deadline: clock.currentTimeMillisUnsafe() + authTimeout }) }
      }),
      grpcOptions: channelOptions(),
      faultHandling: { host: () => plain, global: plain }
    }),
    streams: new Set()
  })
  const close = (host: Host): void => {
    endStreams(host)
    host.client.close()
  }
  let host: Host = yield* Effect.try({
    try: connect,
    catch: (cause) =>
      new LockBackendError({ backend: "etcd", operation: "connect", reason: "Options", detail: String(cause) })
  })
  yield* Effect.addFinalizer(() => Effect.sync(() => close(host)))
  return {
    count: endpoints.length,
    current: () => host,
    condemn: (condemned) => {
      if (condemned !== host) return
      host = connect()
      close(condemned)
    }
  }
})

/** A client that somebody else opened, and will close. */
export const of = (client: Etcd3): Hosts => {
  const host: Host = { client, streams: new Set() }
  return { count: 1, current: () => host, condemn: endStreams }
}
