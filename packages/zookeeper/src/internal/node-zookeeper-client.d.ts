// The driver has no types of its own. This is what `client.ts`, `connection.ts` and `requests.ts` use of it. Most of it is
// not meant for users of the driver, but there is no other way to what is missing in it.

declare module "node-zookeeper-client" {
  interface Stat {
    readonly czxid: Buffer
    readonly version: number
  }

  interface Response {
    readonly header: { readonly err: number, readonly zxid: Buffer }
    readonly payload: {
      readonly path?: string | undefined
      readonly children?: ReadonlyArray<string> | undefined
      readonly data?: Buffer | undefined
      readonly stat?: Stat | undefined
    } | null
  }

  /** Called with a response when the server answered, without one when the connection ended before that. */
  type Callback = (error: unknown, response?: Response) => void

  interface Socket {
    readonly destroyed: boolean
    readonly destroy: () => void
    readonly cork: () => void
    readonly uncork: () => void
  }

  interface Manager {
    readonly state: number
    readonly sessionId: Buffer
    /** Milliseconds, as negotiated. */
    readonly sessionTimeout: number
    /** Sent at the beginning of each connection. */
    credentials: ReadonlyArray<{ readonly scheme: string, readonly auth: Buffer }>
    readonly socket: Socket | undefined
    readonly connectTimeoutHandler: NodeJS.Timeout | null
    /** The number of the next request. */
    xid: number
    /** What is to be sent. */
    readonly packetQueue: { queue: Array<{ readonly callback: Callback }> }
    /** The beginning of a frame whose rest has not come yet. */
    pendingBuffer: Buffer | null
    readonly watcherManager: { emit: (event: { readonly type: number, readonly path: string }) => void }
    readonly on: (event: "state", listener: (state: number) => void) => unknown
    readonly off: (event: "state", listener: (state: number) => void) => unknown
    readonly queue: (request: object, callback: Callback) => void
    /** Chooses the server of the next connection, which is made when it calls back. */
    findNextServer: (callback: (server: { readonly host: string, readonly port: number }) => void) => void
    onSocketData: (chunk: Buffer) => void
  }

  interface Client {
    readonly connectionManager: Manager
    readonly connect: () => void
    readonly close: () => void
    readonly getSessionId: () => Buffer
    readonly getSessionTimeout: () => number
  }

  export const createClient: (
    connectionString: string,
    options?: { readonly sessionTimeout?: number, readonly spinDelay?: number, readonly retries?: number }
  ) => Client
}

declare module "node-zookeeper-client/lib/jute/index.js" {
  const jute: {
    readonly OP_CODES: {
      readonly CREATE: number
      readonly DELETE: number
      readonly GET_DATA: number
      readonly SET_DATA: number
      readonly GET_CHILDREN2: number
    }
    readonly Request: new(header: object, payload: object) => { toBuffer: () => Buffer }
    readonly data: {
      readonly Id: new(scheme: string, id: string) => object
      readonly ACL: new(permissions: number, id: object) => object
    }
    readonly protocol: {
      readonly RequestHeader: new(xid: number, type: number) => object
      readonly CreateRequest: new(path: string, data: Buffer, acl: ReadonlyArray<object>, flags: number) => object
      readonly DeleteRequest: new(path: string, version: number) => object
      readonly GetDataRequest: new(path: string, watch: boolean) => object
      readonly SetDataRequest: new(path: string, data: Buffer, version: number) => object
      readonly GetChildren2Request: new(path: string, watch: boolean) => object
    }
  }
  export default jute
}
