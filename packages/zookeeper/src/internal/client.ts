/**
 * The edge to the driver, node-zookeeper-client 1.1.3: the one place that knows its faults.
 *
 * - It awaits no answer, not even to its pings, and takes a connection for made when TCP is: `silentSince`,
 *   `waitingSince` and `connectingSince` tell the session when to `cut` and to `giveUp`.
 * - It connects to the first address of a name only: the addresses are chosen in `connection.ts`.
 * - The first part of a frame whose rest was cut off is read as the beginning of the next connection: dropped here.
 * - A request that is not sent yet when a connection ends is not answered, but goes out on the next one, even before
 *   the credentials: it gets nothing without a connection, and what it has not sent is taken back.
 * - It throws, out of its socket's listener, for an error that it has no name for (a quota, a throttled request):
 *   caught here, and given to the request that it answers.
 * - It copies what is left of a chunk for every answer in it, and reads that in one more call on the stack: it gets one
 *   answer at a time.
 * - Its numbers for requests have 32 bits with a sign, and it fails for ever when they are used up: they begin again.
 * - On a new connection it sets its watches again in a single packet, which the server refuses above 1 MiB, for ever:
 *   it does not know our watches; they end with the connection.
 * - Without a connection `close` throws, now or later: the client is closed without it then.
 * - A client whose session has expired is dead: the session makes another one.
 */
import type { Callback, Client as Driver, Manager } from "node-zookeeper-client"
import { codes } from "./errors.ts"
import { type Call, type Reply, replyOf, watch } from "./requests.ts"

/** The states of the driver's connection. */
export const state = {
  disconnected: 0,
  connecting: 1,
  connected: 2,
  sessionExpired: -3,
  authenticationFailed: -4
} as const

/** The type of the event that a node was removed. */
const nodeRemoved = 2

/** Whether it is a client of the driver, as `createClient` makes it. */
export const isDriver = (client: object): client is Driver =>
  "connectionManager" in client && typeof client.connectionManager === "object" && client.connectionManager !== null &&
  ["packetQueue", "watcherManager", "queue", "sessionId", "findNextServer"].every((name) =>
    name in Object(client.connectionManager)
  )

/** What happens to a client, told at once. That a connection ended, calls and watches are told. */
export interface Events {
  readonly onConnecting: () => void
  readonly onConnected: () => void
  /** No connection will follow. */
  readonly onEnded: (reason: "expired" | "unauthorized") => void
}

/** Why a watch ended: the node was removed, changed or absent, the connection ended, or the server refused. */
export type Watched = "removed" | "changed" | "absent" | "disconnected" | Reply

type Listener = (outcome: Watched) => void

/** Where the numbers of requests begin again: far below the limit, because they are given when a request is sent. */
const mostXids = 2 ** 30

interface Outstanding {
  readonly sentAt: number
  /** What the driver calls. */
  readonly onResponse: Callback
  readonly settle: (reply: Reply | undefined) => void
}

/**
 * Called before a request is sent. What is sent in one turn of the event loop goes out in one write, which is the most
 * expensive part of a request for the client.
 */
const gather = (manager: Manager): () => void => {
  let corked: Manager["socket"]
  const flush = (): void => {
    corked?.uncork()
    corked = undefined
  }
  return () => {
    const { socket } = manager
    if (socket === corked) return
    flush()
    corked = socket
    socket?.cork()
    // A tick would come before the microtask in which a local waiter sends its request behind a release.
    queueMicrotask(flush)
  }
}

/** A client over a driver that was made, and will be closed, elsewhere. */
export class Client {
  /** When the connection began that stands or is in the making, in milliseconds of the monotonic clock. */
  connectingSince: number | undefined
  isConnected: boolean
  /** Why no connection can be made, if so. */
  trouble: string | undefined
  private readonly driver: Driver
  private readonly events: Events
  /** Milliseconds of the monotonic clock. */
  private readonly now: () => number
  /** In the order of sending, which is the order of the answers. */
  private readonly outstanding = new Set<Outstanding>()
  private readonly watches = new Map<string, Set<Listener>>()
  private readonly gatherWrites: () => void
  private readonly forgetDriver: () => void
  private heardAt = 0

  constructor(driver: Driver, events: Events, now: () => number) {
    const { connectionManager: manager } = driver
    const { watcherManager } = manager
    this.driver = driver
    this.events = events
    this.now = now
    this.isConnected = manager.state === state.connected
    this.gatherWrites = gather(manager)
    const onState = (now: number) => this.onState(now)
    const emit = watcherManager.emit
    const emitBoth: typeof emit = (event) => {
      this.endWatches(event.path, event.type === nodeRemoved ? "removed" : "changed")
      emit.call(watcherManager, event)
    }
    manager.on("state", onState)
    watcherManager.emit = emitBoth
    this.forgetDriver = () => {
      manager.off("state", onState)
      if (watcherManager.emit === emitBoth) watcherManager.emit = emit
    }
  }

  get sessionId(): bigint {
    return this.driver.connectionManager.sessionId.readBigInt64BE()
  }

  /** Milliseconds, as negotiated. */
  get sessionTimeout(): number {
    return this.driver.connectionManager.sessionTimeout
  }

  /** Since when the server owes an answer and has given none. */
  get silentSince(): number | undefined {
    const [oldest] = this.outstanding
    return oldest === undefined ? undefined : Math.max(oldest.sentAt, this.heardAt)
  }

  /** Sends calls in one go. The server answers them in this order; `undefined`: the connection ended before. */
  send(calls: ReadonlyArray<Call>, onReplies: (replies: ReadonlyArray<Reply> | undefined) => void): void {
    if (!this.isConnected) return onReplies(undefined)
    if (calls.length === 0) return onReplies([])
    const replies: Array<Reply> = []
    let open = calls.length
    let lost = false
    this.gatherWrites()
    for (const each of calls) {
      this.sendOne(each, (reply) => {
        open -= 1
        if (reply === undefined) lost = true
        else replies.push(reply)
        if (open === 0) onReplies(lost ? undefined : replies)
      })
    }
  }

  /** Watches a node, once; `onRead` gets what it is now. The result calls the watch off. */
  watch(path: string, onEnd: Listener, onRead: (reply: Reply) => void): () => void {
    const listeners = this.watches.get(path) ?? new Set()
    const callOff = (): void => {
      if (listeners.delete(onEnd) && listeners.size === 0 && this.watches.get(path) === listeners) {
        this.watches.delete(path)
      }
    }
    this.watches.set(path, listeners.add(onEnd))
    this.send([watch(path)], (replies) => {
      if (!listeners.has(onEnd)) return
      const reply = replies?.[0]
      if (reply?.code === codes.ok) return onRead(reply)
      callOff()
      if (reply === undefined) onEnd("disconnected")
      else onEnd(reply.code === codes.noNode ? "absent" : reply)
    })
    return callOff
  }

  /** A connection begins now. */
  onConnecting(): void {
    this.connectingSince = this.now()
    this.events.onConnecting()
  }

  /** Answers the oldest call. */
  answerOldest(reply: Reply): void {
    const [oldest] = this.outstanding
    if (oldest !== undefined) this.answer(oldest, reply)
  }

  /** Ends the connection; the driver makes another one. */
  cut(): void {
    const { connectionManager: manager } = this.driver
    // The driver does not stop this timer, which would then end the next connection.
    if (manager.connectTimeoutHandler !== null) clearTimeout(manager.connectTimeoutHandler)
    manager.socket?.destroy()
  }

  /** Leaves the driver as it was. */
  forget(): void {
    this.forgetDriver()
    this.isConnected = false
    this.takeBackUnsent()
  }

  private onState(now: number): void {
    if (now === state.connecting) {
      this.onConnecting()
    } else if (now === state.connected) {
      this.isConnected = true
      this.events.onConnected()
    } else {
      this.connectingSince = undefined
      this.onDisconnected()
      if (now === state.sessionExpired) this.events.onEnded("expired")
      if (now === state.authenticationFailed) this.events.onEnded("unauthorized")
    }
  }

  /** The driver begins the next connection only after this. */
  private onDisconnected(): void {
    this.driver.connectionManager.pendingBuffer = null
    if (!this.isConnected) return
    this.isConnected = false
    this.takeBackUnsent()
    const unanswered = [...this.outstanding]
    this.outstanding.clear()
    for (const { settle } of unanswered) settle(undefined)
    for (const path of this.watches.keys()) this.endWatches(path, "disconnected")
  }

  private takeBackUnsent(): void {
    const { packetQueue } = this.driver.connectionManager
    if (packetQueue.queue.length === 0) return
    const ours = new Set(Array.from(this.outstanding, ({ onResponse }) => onResponse))
    packetQueue.queue = packetQueue.queue.filter(({ callback }) => !ours.has(callback))
  }

  private endWatches(path: string, outcome: Watched): void {
    const ending = this.watches.get(path)
    this.watches.delete(path)
    for (const end of ending ?? []) end(outcome)
  }

  private answer(entry: Outstanding, reply: Reply): void {
    this.outstanding.delete(entry)
    entry.settle(reply)
  }

  private sendOne({ onReply, packet }: Call, onEnd: (reply: Reply | undefined) => void): void {
    const { connectionManager: manager } = this.driver
    const entry: Outstanding = {
      sentAt: this.now(),
      settle: (reply) => {
        onReply?.(reply)
        onEnd(reply)
      },
      onResponse: (_error, response) => {
        // Without a response it is the connection that ended; callers hear of it before listeners do.
        if (response === undefined) return this.onDisconnected()
        this.heardAt = this.now()
        this.answer(entry, replyOf(response))
      }
    }
    this.outstanding.add(entry)
    if (manager.xid >= mostXids) manager.xid = 0
    manager.queue(packet, entry.onResponse)
  }
}
