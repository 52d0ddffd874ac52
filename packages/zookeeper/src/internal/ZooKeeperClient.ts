// Whoever compiles this file from its source needs the declarations, too.
// oxlint-disable-next-line typescript/triple-slash-reference
/// <reference path="./node-zookeeper-client.d.ts" />
/**
 * The edge to the driver, node-zookeeper-client 1.1.3: the one place that knows its faults.
 *
 * - It awaits no answer, not even to its pings, and takes a connection for made when TCP is: `silentSince`,
 *   `waitingSince` and `connectingSince` tell the session when to `cut` and to `giveUp`.
 * - The first part of a frame whose rest was cut off is read as the beginning of the next connection: dropped here.
 * - A request that is not sent yet when a connection ends is not answered, but goes out on the next one, even before
 *   the credentials: it is given nothing without a connection, and what it has not sent is taken back.
 * - It throws, out of its socket's listener, for an error that it has no name for (a quota, a throttled request):
 *   caught here, and given to the request that it answers.
 * - It copies what is left of a chunk for every answer in it, and reads that in one more call on the stack: it is given
 *   one answer at a time.
 * - Its numbers for requests have 32 bits with a sign, and it fails for ever when they are used up: they begin again.
 * - On a new connection it sets its watches again in a single packet, which the server refuses above 1 MiB, for ever:
 *   it knows nothing of ours; who watches is told that the connection ended.
 * - Without a connection `close` throws, now or later, and a connection in the making can not be called off.
 * - A client whose session has expired is dead: the session makes another one.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { createClient } from "node-zookeeper-client"
import { type Callback, type Driver, isDriver, state } from "./ZooKeeperDriver.ts"
import { type Call, codes, type Reply, replyOf, watch } from "./ZooKeeperRequest.ts"
import { gather, readFrames } from "./ZooKeeperSocket.ts"

/** What happens to a client, told at once. That a connection ended, calls and watches are told. */
export interface Events {
  readonly onConnected: () => void
  /** No connection will follow. */
  readonly onEnded: (reason: "expired" | "unauthorized") => void
}

/** Why a watch ended: the node was removed or changed, there is none, the connection ended, or the server refused. */
export type Watched = "changed" | "absent" | "disconnected" | Reply

export interface ZooKeeperClient {
  readonly isConnected: () => boolean
  readonly sessionId: () => bigint
  /** Milliseconds, as negotiated. */
  readonly sessionTimeout: () => number
  /** When the connection was begun that stands or is in the making, on the monotonic clock. */
  readonly connectingSince: () => bigint | undefined
  /** Since when the server owes an answer and has given none. */
  readonly silentSince: () => bigint | undefined
  /** When the oldest call was sent that has no answer yet. */
  readonly waitingSince: () => bigint | undefined
  /** Gives up waiting for the answers to calls that were sent before: they may still be carried out. */
  readonly giveUp: (before: bigint) => void
  /** Sends calls in one go. The server answers them in this order; `undefined`: the connection ended before. */
  readonly send: (calls: ReadonlyArray<Call>, onReplies: (replies: ReadonlyArray<Reply> | undefined) => void) => void
  /** Watches a node, once. What it returns calls the watch off. */
  readonly watch: (path: string, onEnd: (outcome: Watched) => void) => () => void
  /** Ends the connection; the driver makes another one. */
  readonly cut: () => void
  /** Ends the session, if the server can be told, and the client. */
  readonly close: Effect.Effect<void>
}

/** How a client of our own is made. */
export interface Settings {
  readonly servers: ReadonlyArray<string>
  /** Milliseconds to ask for. */
  readonly sessionTimeout: number
  /** `user:password` */
  readonly digest: string | undefined
}

/** Between two rounds over all servers the driver waits up to this, at random. Milliseconds. */
const spinDelay = 250

/** How long the server may take to end a session. Milliseconds. */
const closeLimit = 1000

/** Where the numbers of requests begin again: far below the limit, because they are given when a request is sent. */
const mostXids = 2 ** 30

interface Outstanding {
  readonly sentAt: bigint
  /** Somebody waits for the answer. */
  isAwaited: boolean
  /** What the driver is given. */
  readonly onResponse: Callback
  readonly settle: (reply: Reply | undefined) => void
}

/** An error that the driver has no name for. */
const unknownCode = (error: unknown): number | undefined => {
  const match = error instanceof Error ? /^Unknown code: (-?\d+)$/.exec(error.message) : null
  return match === null ? undefined : Number(match[1])
}

const endOfWatch = ([reply]: ReadonlyArray<Reply>): Watched | undefined => {
  if (reply === undefined || reply.code === codes.ok) return undefined
  return reply.code === codes.noNode ? "absent" : reply
}

const refusal = (code: number): Reply => ({ code, zxid: 0n, path: "", children: [], czxid: 0n, ephemeralOwner: 0n })

const make = (driver: Driver, events: Events, clock: Clock.Clock) => {
  const { connectionManager: manager } = driver
  /** In the order of sending, which is the order of the answers, those too that nobody waits for any more. */
  const outstanding = new Set<Outstanding>()
  const watches = new Map<string, Set<(outcome: Watched) => void>>()
  let connected = manager.state === state.connected
  let connectingSince: bigint | undefined
  let heardAt = 0n
  const gatherWrites = gather(manager)

  const takeBackUnsent = (): void => {
    const { packetQueue } = manager
    if (packetQueue.queue.length === 0) return
    const ours = new Set(Array.from(outstanding, ({ onResponse }) => onResponse))
    packetQueue.queue = packetQueue.queue.filter(({ callback }) => !ours.has(callback))
  }

  const endWatches = (path: string, outcome: Watched): void => {
    const ending = watches.get(path)
    watches.delete(path)
    for (const end of ending ?? []) end(outcome)
  }

  /** The driver begins the next connection only after this. */
  const disconnect = (): void => {
    manager.pendingBuffer = null
    if (!connected) return
    connected = false
    takeBackUnsent()
    const unanswered = [...outstanding]
    outstanding.clear()
    for (const { settle } of unanswered) settle(undefined)
    for (const path of watches.keys()) endWatches(path, "disconnected")
  }

  const onState = (now: number): void => {
    if (now === state.connecting) {
      connectingSince = clock.monotonicTimeNanosUnsafe()
    } else if (now === state.connected) {
      connected = true
      events.onConnected()
    } else {
      connectingSince = undefined
      disconnect()
      if (now === state.sessionExpired) events.onEnded("expired")
      if (now === state.authenticationFailed) events.onEnded("unauthorized")
    }
  }

  const { watcherManager } = manager
  const emit = watcherManager.emit
  const emitBoth: typeof emit = (event) => {
    endWatches(event.path, "changed")
    emit.call(watcherManager, event)
  }

  const answer = (entry: Outstanding, reply: Reply): void => {
    outstanding.delete(entry)
    entry.settle(reply)
  }

  const sendOne = ({ onReply, packet }: Call, sentAt: bigint, onEnd: (reply: Reply | undefined) => void): void => {
    const entry: Outstanding = {
      sentAt,
      isAwaited: true,
      settle: (reply) => {
        if (!entry.isAwaited) return
        entry.isAwaited = false
        onReply?.(reply)
        onEnd(reply)
      },
      onResponse: (_error, response) => {
        // Without a response it is the connection that ended; callers hear of it before listeners do.
        if (response === undefined) return disconnect()
        heardAt = clock.monotonicTimeNanosUnsafe()
        answer(entry, replyOf(response))
      }
    }
    outstanding.add(entry)
    if (manager.xid >= mostXids) manager.xid = 0
    manager.queue(packet, entry.onResponse)
  }

  const send: ZooKeeperClient["send"] = (calls, onReplies) => {
    if (!connected) return onReplies(undefined)
    if (calls.length === 0) return onReplies([])
    const sentAt = clock.monotonicTimeNanosUnsafe()
    const replies: Array<Reply> = []
    let open = calls.length
    let lost = false
    gatherWrites()
    for (const each of calls) {
      sendOne(each, sentAt, (reply) => {
        open -= 1
        if (reply === undefined) lost = true
        else replies.push(reply)
        if (open === 0) onReplies(lost ? undefined : replies)
      })
    }
  }

  const watchOnce: ZooKeeperClient["watch"] = (path, onEnd) => {
    const listeners = watches.get(path) ?? new Set()
    const callOff = (): void => {
      if (listeners.delete(onEnd) && listeners.size === 0 && watches.get(path) === listeners) watches.delete(path)
    }
    watches.set(path, listeners.add(onEnd))
    send([watch(path)], (replies) => {
      const outcome = replies === undefined ? "disconnected" : endOfWatch(replies)
      if (outcome === undefined || !listeners.has(onEnd)) return
      callOff()
      onEnd(outcome)
    })
    return callOff
  }

  const waitingSince = (): bigint | undefined => {
    for (const { isAwaited, sentAt } of outstanding) if (isAwaited) return sentAt
    return undefined
  }

  const answerOldest = (reply: Reply): void => {
    const oldest = outstanding.values().next().value
    if (oldest !== undefined) answer(oldest, reply)
  }

  const silentSince = (): bigint | undefined => {
    const sentAt = waitingSince()
    return sentAt === undefined || sentAt > heardAt ? sentAt : heardAt
  }

  const giveUp = (before: bigint): void => {
    for (const { sentAt, settle } of outstanding) {
      if (sentAt > before) return
      settle(undefined)
    }
  }

  const cut = (): void => {
    // The driver forgets to stop this timer, which would then end the next connection.
    if (manager.connectTimeoutHandler !== null) clearTimeout(manager.connectTimeoutHandler)
    manager.socket?.destroy()
  }

  const forget = (): void => {
    manager.off("state", onState)
    if (watcherManager.emit === emitBoth) watcherManager.emit = emit
    connected = false
    takeBackUnsent()
  }

  manager.on("state", onState)
  watcherManager.emit = emitBoth
  const client: Omit<ZooKeeperClient, "close"> = {
    isConnected: () => connected,
    sessionId: () => manager.sessionId.readBigInt64BE(),
    sessionTimeout: () => manager.sessionTimeout,
    connectingSince: () => connectingSince,
    silentSince,
    waitingSince,
    giveUp,
    send,
    watch: watchOnce,
    cut
  }
  return { client, forget, answerOldest }
}

/** Works with a client that somebody else made and closes. */
export const attach = (driver: Driver, events: Events, clock: Clock.Clock): ZooKeeperClient => {
  const { client, forget } = make(driver, events, clock)
  return { ...client, close: Effect.sync(forget) }
}

/** Makes a client and begins its first connection. */
export const open = (settings: Settings, events: Events, clock: Clock.Clock): ZooKeeperClient => {
  const { digest, servers, sessionTimeout } = settings
  const driver = createClient(servers.join(","), { sessionTimeout, spinDelay, retries: 0 })
  if (!isDriver(driver)) throw new Error("this version of node-zookeeper-client is not the one that is known")
  const { connectionManager: manager } = driver
  if (digest !== undefined) driver.addAuthInfo("digest", Buffer.from(digest))
  const { answerOldest, client, forget } = make(driver, events, clock)

  readFrames(driver, (error) => {
    const code = unknownCode(error)
    if (code === undefined) client.cut()
    else answerOldest(refusal(code))
  })

  const closed = Effect.callback<void>((resume) => {
    manager.on("state", (now) => {
      if (now === state.disconnected) resume(Effect.void)
    })
    driver.close()
  })
  const close = Effect.suspend(() => {
    const wasConnected = client.isConnected()
    forget()
    manager.connect = () => {}
    const cut = Effect.sync(client.cut)
    if (wasConnected) return Effect.andThen(Effect.timeoutOption(closed, closeLimit), cut)
    // The driver may be about to begin a connection.
    return Effect.andThen(cut, Effect.delay(cut, spinDelay))
  })

  driver.connect()
  return { ...client, close }
}
