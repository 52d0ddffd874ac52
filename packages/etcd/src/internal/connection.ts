/**
 * The driver's clients: one at a time, for as long as its connection is trusted, to one endpoint after the other.
 */
import { Channel, ChannelCredentials, type ClientOptions } from "@grpc/grpc-js"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { Etcd3, type IOptions } from "etcd3"
import type { Socket } from "node:net"
import * as NodeTls from "node:tls"
import { badOption, closed, type Failure } from "./errors.ts"

/** PEM texts. */
export interface Certificates {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly servername?: string
}

/** How to connect. The certificates and the password are read at each connect. */
export interface Settings {
  /** `host:port`. */
  readonly endpoints: ReadonlyArray<string>
  readonly tls: Effect.Effect<Redacted.Redacted<Certificates>, string> | undefined
  readonly login: {
    readonly username: string
    readonly password: Effect.Effect<Redacted.Redacted, string>
  } | undefined
}

/** One client of the driver. */
export interface Connection {
  readonly driver: Etcd3
  /** Where it leads; none for a client of the caller's own. */
  readonly address: string | undefined
  /** Ends its streams, each by its entry. */
  readonly streams: Set<() => void>
  /** Ends the driver's client, and connections on which the server has said nothing. */
  readonly close: () => void
  /** Whether the server has answered anything on it. */
  answered: boolean
}

/** The connection in use, and what comes after it. */
export interface Connections {
  readonly count: number
  /** A client of the caller's own has its own fault handling, which may send a request twice without telling. */
  readonly isGiven: boolean
  readonly current: Effect.Effect<Connection, Failure>
  /** Closes it; the next request opens another one. */
  readonly discard: (connection: Connection) => void
}

const realClock = Clock.Clock.defaultValue()

/** When a call is late, as gRPC is told. It reads the real clock, whatever the clock of the context says. */
export const grpcDeadline = (patience: number): number => realClock.currentTimeMillisUnsafe() + patience

/** Ending a stream may open another one at once. */
const endStreams = ({ streams }: Connection): void => {
  Array.from(streams).forEach((end) => end())
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

/** What Node trusts; older versions of Node tell only what they bring along. */
const { getCACertificates: authorities = () => NodeTls.rootCertificates } = NodeTls

const pem = (text: string): Buffer => Buffer.from(text, "utf8")

const credentialsOf = (certificates: Certificates | undefined): ChannelCredentials => {
  if (certificates === undefined) return ChannelCredentials.createInsecure()
  const { ca = authorities().join("\n"), cert, key } = certificates
  return ChannelCredentials.createSsl(
    pem(ca),
    key === undefined ? null : pem(key),
    cert === undefined ? null : pem(cert)
  )
}

/** What gRPC's channels of one client are told of when they connect. */
interface Connecting {
  readonly isClosed: () => boolean
  readonly onSocket: (socket: Socket) => void
}

/**
 * gRPC waits without end for the first word of a server that has accepted a connection, and the driver goes on to connect
 * for a second after it was closed. Only the part of the credentials that encrypts a socket sees either.
 */
const watchConnecting = (credentials: ChannelCredentials, { isClosed, onSocket }: Connecting): void => {
  // It is no part of gRPC's promises; without it, such a connection stays open.
  if (!("_createSecureConnector" in credentials)) return
  const make = credentials._createSecureConnector.bind(credentials)
  credentials._createSecureConnector = (target, options, call) => {
    const connector = make(target, options, call)
    const connect = connector.connect.bind(connector)
    const waitForReady = connector.waitForReady.bind(connector)
    // Comes before the socket is opened.
    connector.waitForReady = () => isClosed() ? Promise.reject(new Error("the connection is closed")) : waitForReady()
    connector.connect = (socket) => {
      onSocket(socket)
      return connect(socket)
    }
    return connector
  }
}

const grpcOptions = (certificates: Certificates | undefined, credentials: ChannelCredentials): ClientOptions => ({
  "grpc.keepalive_time_ms": pingEvery,
  "grpc.keepalive_timeout_ms": 3000,
  "grpc.initial_reconnect_backoff_ms": 50,
  "grpc.max_reconnect_backoff_ms": 1000,
  "grpc.max_receive_message_length": -1,
  // Nothing reads gRPC's own statistics of every call.
  "grpc.enable_channelz": 0,
  // gRPC shares a connection among all clients of the process whose options are equal.
  "grpc.primary_user_agent": `dlock/${++incarnations}`,
  ...(certificates?.servername !== undefined && { "grpc.ssl_target_name_override": certificates.servername }),
  channelFactoryOverride: (address, _credentials, options) => new Channel(address, credentials, options)
})

const endIfSilent = (socket: Socket): void => {
  if (socket.bytesRead === 0) socket.destroy()
}

const connect = (endpoint: string, certificates: Certificates | undefined): Connection => {
  const credentials = credentialsOf(certificates)
  const sockets = new Set<Socket>()
  let isClosed = false
  const onSocket = (socket: Socket): void => {
    if (isClosed) endIfSilent(socket)
    sockets.add(socket)
    socket.once("close", () => sockets.delete(socket))
  }
  watchConnecting(credentials, { isClosed: () => isClosed, onSocket })
  const driver = new Etcd3({
    hosts: endpoint,
    grpcOptions: grpcOptions(certificates, credentials),
    faultHandling: { host: () => plain, global: plain }
  })
  const close = (): void => {
    isClosed = true
    driver.close()
    sockets.forEach(endIfSilent)
  }
  return { driver, address: endpoint, streams: new Set(), close, answered: false }
}

/** Connections of our own, closed with the scope. */
export const open = Effect.fnUntraced(function*(
  { endpoints, tls }: Settings
): Effect.fn.Return<Connections, never, Scope.Scope> {
  let next = yield* Random.nextIntBetween(0, endpoints.length, { halfOpen: true })
  let current: Connection | undefined
  let isClosed = false
  const discard = (connection: Connection): void => {
    if (current !== connection) return
    current = undefined
    endStreams(connection)
    connection.close()
  }
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      isClosed = true
      if (current !== undefined) discard(current)
    })
  )
  const certificates: Effect.Effect<Certificates | undefined, Failure> = tls === undefined
    ? Effect.undefined
    : Effect.mapBoth(tls, { onFailure: (problem) => badOption(`tls: ${problem}`), onSuccess: Redacted.value })
  const reconnect = Effect.flatMap(certificates, (certificates) => {
    if (isClosed) return Effect.fail(closed)
    // Another request may have connected while the certificates were read.
    if (current !== undefined) return Effect.succeed(current)
    return Effect.try({
      try: () => current = connect(endpoints[next++ % endpoints.length] ?? "", certificates),
      catch: (cause) => badOption(String(cause))
    })
  })
  return {
    count: endpoints.length,
    isGiven: false,
    current: Effect.suspend(() => current === undefined ? reconnect : Effect.succeed(current)),
    discard
  }
})

/** A client of the caller's own, which stays open. */
export const of = (driver: Etcd3): Connections => {
  const connection: Connection = { driver, address: undefined, streams: new Set(), close: () => {}, answered: false }
  return { count: 1, isGiven: true, current: Effect.succeed(connection), discard: endStreams }
}
