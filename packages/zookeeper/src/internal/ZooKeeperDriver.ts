/**
 * The parts of a client of node-zookeeper-client 1.1.3 that `ZooKeeperClient.ts` works with. Most are not meant for
 * users of the driver, but what is missing can be had in no other way; see there.
 */

/** The states of the driver's connection. */
export const state = {
  disconnected: 0,
  connecting: 1,
  connected: 2,
  sessionExpired: -3,
  authenticationFailed: -4
} as const

export interface Stat {
  readonly czxid: Buffer
  readonly ephemeralOwner: Buffer
}

export interface Response {
  readonly header: { readonly err: number, readonly zxid: Buffer }
  readonly payload: {
    readonly path?: string | undefined
    readonly children?: ReadonlyArray<string> | undefined
    readonly stat?: Stat | undefined
  } | null
}

/** Called with a response when the server answered, without one when the connection ended before that. */
export type Callback = (error: unknown, response?: Response) => void

interface Packet {
  readonly callback: Callback
}

interface Socket {
  readonly destroyed: boolean
  readonly destroy: () => void
  readonly cork: () => void
  readonly uncork: () => void
}

export interface Manager {
  readonly state: number
  readonly sessionId: Buffer
  /** Milliseconds, as negotiated. */
  readonly sessionTimeout: number
  readonly credentials: ReadonlyArray<unknown>
  readonly socket: Socket | undefined
  readonly connectTimeoutHandler: NodeJS.Timeout | null
  /** The number of the next request. */
  xid: number
  /** What is to be sent. */
  readonly packetQueue: { queue: Array<Packet> }
  /** The beginning of a frame whose rest has not come yet. */
  pendingBuffer: Buffer | null
  readonly watcherManager: { emit: (event: { readonly path: string }) => void }
  readonly on: (event: "state", listener: (state: number) => void) => unknown
  readonly off: (event: "state", listener: (state: number) => void) => unknown
  readonly queue: (request: object, callback: Callback) => void
  connect: () => void
  onSocketData: (chunk: Buffer) => void
}

export interface Driver {
  readonly connectionManager: Manager
  readonly connect: () => void
  readonly close: () => void
  readonly addAuthInfo: (scheme: string, auth: Buffer) => void
}

/** Whether it is a client of the driver, as `createClient` makes it. */
export const isDriver = (client: object): client is Driver =>
  "connectionManager" in client && typeof client.connectionManager === "object" && client.connectionManager !== null &&
  ["packetQueue", "watcherManager", "queue", "sessionId"].every((name) => name in Object(client.connectionManager))
