/**
 * The driver at the edge: the only file that listens to its events and takes its callbacks.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type { Redis } from "ioredis"
import { Command } from "ioredis"
import type { EventEmitter } from "node:events"
import * as Deadlines from "./Deadlines.ts"
import type { Driver } from "./RedisDriver.ts"
import * as RedisDriver from "./RedisDriver.ts"
import type { Call, Outcome, Pending, Post } from "./RedisQueue.ts"
import { Queue } from "./RedisQueue.ts"
import * as RedisSilence from "./RedisSilence.ts"

/** What the server answered, and when it was asked. */
export interface Answer {
  readonly reply: unknown
  /** `Clock.monotonicTimeNanos`, just before the request was written. */
  readonly sentAt: bigint
}

/** Why there is no answer: no connection, no answer in time, or an error of the driver or the server. */
export type Failure =
  | { readonly _tag: "NotConnected", readonly cause: unknown }
  | { readonly _tag: "Late" }
  | { readonly _tag: "Failed", readonly cause: unknown }

/** One command that is no script. */
export interface Request {
  readonly command: string
  readonly args: ReadonlyArray<string>
  /** How long to wait for the answer, in ms. */
  readonly limit: number
}

/** A connection, or the connections to the nodes of a cluster. */
export interface Connection {
  /** Opens it, and fails with the first thing that goes wrong. */
  readonly connect: Effect.Effect<void, Failure>
  /** Waits until it is open. Fails only when it was closed for good. */
  readonly ready: Effect.Effect<void, Failure>
  /** Writes one command, in this turn of the event loop. Interruption does not take it back. */
  readonly send: (request: Request) => Effect.Effect<Answer, Failure>
  /** Calls a script, at the end of this turn. `limit`: how long to wait for the answer, in ms. */
  readonly call: (call: Call, limit: number, onDone: (outcome: Outcome) => void) => Pending
  /**
   * What is written now goes this way, and what went the same way was read before it. `undefined`: nobody knows, because
   * there are several ways, or because the driver sends again by itself.
   */
  readonly wire: () => object | undefined
  /** How many times it was opened. */
  readonly epoch: () => number
  /** `Clock.monotonicTimeNanos` */
  readonly now: () => bigint
}

/** A connection for commands, which the driver opens again whenever it breaks. */
export interface RedisClient extends Connection {
  /** What the driver puts before every key. We do so ourselves, because our keys are derived from one another. */
  readonly keyPrefix: string
  /** The server that has a key now, and how to open another connection to it. */
  readonly masterOf: (
    key: string
  ) => Effect.Effect<{ readonly name: string, readonly open: Effect.Effect<Connection, never, Scope.Scope> }, Failure>
  /** A connection for messages, which ends when it breaks. Each time perhaps to another node. */
  readonly subscriber: Effect.Effect<Subscriber, Failure, Scope.Scope>
}

/** A connection on which messages arrive. */
export interface Subscriber extends Connection {
  readonly listen: (onMessage: (message: string) => void, onClose: () => void) => Effect.Effect<void>
}

/** A command that knows how often the driver wrote it: some drivers send again what a broken connection left unanswered. */
class CountedCommand extends Command {
  writes = 0
  override toWritable(socket: object) {
    this.writes++
    return super.toWritable(socket)
  }
}

const ignore = () => {}

const closed = (cause: unknown = new Error("the connection is closed")): Failure => ({ _tag: "NotConnected", cause })

const notConnected = (cause: unknown) => Effect.fail(closed(cause))

const unknownNode = notConnected(new Error("no node of the cluster is known"))

/** `longestSilence`: for how long a server that was asked may say nothing, in ms; `undefined`: the driver knows. */
const connection = Effect.fnUntraced(function*(
  driver: Driver,
  own: boolean,
  longestSilence?: number
): Effect.fn.Return<Connection, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const now = () => clock.monotonicTimeNanosUnsafe()
  const millis = () => Number(now()) / 1e6
  const deadlines: Deadlines.Deadlines = yield* Deadlines.make(() => silence?.doubt())
  const silence = longestSilence === undefined
    ? undefined
    : RedisSilence.make(driver, deadlines, millis, longestSilence)
  const events: EventEmitter = driver
  const change = Latch.makeUnsafe(false)
  let epoch = 0
  /** Why there is no connection now. */
  let trouble: unknown
  /** What went wrong since `connect`, also if there is a connection in spite of it. */
  let failure: unknown
  /** What the last sentinel said that could not help. */
  let sentinel: unknown

  const onReady = () => {
    epoch++
    trouble = undefined
    sentinel = undefined
    change.openUnsafe()
  }
  const onError = (cause: unknown) => {
    trouble = sentinel ?? cause
    failure = trouble
    sentinel = undefined
    change.openUnsafe()
  }
  const onClose = () => onError(trouble ?? new Error("the connection was closed"))
  const onSentinelError = (cause: unknown) => {
    sentinel = cause
  }
  const listenTo = (event: string, listener: (cause: unknown) => void) =>
    Effect.acquireRelease(
      Effect.sync(() => events.on(event, listener)),
      () => Effect.sync(() => events.off(event, listener))
    )
  yield* listenTo("connect", () => silence?.opened())
  yield* listenTo("ready", onReady)
  yield* listenTo("close", onClose)
  yield* listenTo("end", onClose)
  yield* listenTo("sentinelError", onSentinelError)
  if (own) {
    yield* Effect.sync(() => events.on("error", onError))
    yield* Effect.addFinalizer(() => Effect.sync(() => driver.disconnect()))
  }

  const nextChange = Effect.suspend(() => {
    change.closeUnsafe()
    return change.await
  })
  const start = Effect.sync(() => {
    if (driver.status === "wait") driver.connect().catch(ignore)
  })

  const untilOpen: Effect.Effect<void, Failure> = Effect.suspend(() => {
    if (failure !== undefined || driver.status === "end") return notConnected(failure)
    return driver.status === "ready" ? Effect.void : Effect.flatMap(nextChange, () => untilOpen)
  })
  const connect = Effect.scoped(Effect.gen(function*() {
    // A driver without a listener prints its errors; one that is not ours shall go on doing so.
    if (!own) yield* listenTo("error", onError)
    failure = undefined
    yield* start
    yield* untilOpen
  }))

  const untilReady: Effect.Effect<void, Failure> = Effect.suspend(() => {
    if (driver.status === "ready") return Effect.void
    return driver.status === "end" ? notConnected(trouble) : Effect.flatMap(nextChange, () => untilReady)
  })

  const post: Post = (command, args, onReply) => {
    if (driver.status !== "ready") return onReply(closed(trouble), undefined, true)
    silence?.asked()
    // Not with the driver's callbacks: a command keeps its own, and with it what follows, long after it was answered.
    const sending = new CountedCommand(command, args, { replyEncoding: "utf8" })
    const onSettled = (failure: Failure | undefined, reply?: unknown) => {
      silence?.heard()
      onReply(failure, reply, sending.writes <= 1)
    }
    sending.promise.then(
      (reply: unknown) => onSettled(undefined, reply),
      (cause: unknown) => onSettled({ _tag: "Failed", cause })
    )
    driver.sendCommand(sending)
  }
  // A cluster has a connection for each node, chosen by the driver.
  const together = (write: () => void) => {
    const stream = "stream" in driver && driver.status === "ready" ? driver.stream : undefined
    if (stream === undefined) return write()
    stream.cork()
    process.nextTick(() => stream.uncork())
    write()
  }
  const queue = new Queue(post, together, deadlines, now)

  const send = (request: Request): Effect.Effect<Answer, Failure> =>
    Effect.callback((resume) => {
      const sentAt = now()
      const deadline = new Deadlines.Alarm(() => resume(Effect.fail({ _tag: "Late" })))
      deadline.at = Number(sentAt) / 1e6 + request.limit
      deadlines.add(deadline)
      post(request.command, [...request.args], (failure, reply) => {
        deadlines.remove(deadline)
        resume(failure === undefined ? Effect.succeed({ reply, sentAt }) : Effect.fail(failure))
      })
      return Effect.sync(() => deadlines.remove(deadline))
    })

  return {
    connect,
    ready: Effect.andThen(start, untilReady),
    send,
    call: (call, limit, onDone) => queue.call(call, limit, onDone),
    wire: () => own && "stream" in driver ? driver.stream : undefined,
    epoch: () => epoch,
    now
  }
})

/** A connection for messages over a driver of our own. */
const messages = (driver: Redis): Effect.Effect<Subscriber, never, Scope.Scope> =>
  Effect.map(connection(driver, true), (connection) => ({
    ...connection,
    listen: (onMessage, onClose) =>
      Effect.sync(() => {
        driver.on("message", (_, message) => onMessage(message))
        driver.on("close", onClose)
      })
  }))

/**
 * A driver as a client. One that is our `own` ends with the scope; another is left as it was. `limitMillis` is how long a
 * server may take to answer.
 */
export const make = Effect.fnUntraced(function*(
  driver: Driver,
  options: { readonly own: boolean, readonly limitMillis: number }
): Effect.fn.Return<RedisClient, never, Scope.Scope> {
  // A cluster has several connections, and another's driver its own settings.
  const longestSilence = options.own && !("nodes" in driver)
    ? RedisDriver.longestSilence(options.limitMillis)
    : undefined
  let turn = 0
  const subscriber = Effect.suspend(() => {
    const other = RedisDriver.forMessages(driver, turn++, options.limitMillis)
    return other === undefined ? unknownNode : messages(other)
  })
  const masterOf: RedisClient["masterOf"] = (key) =>
    Effect.suspend(() => {
      const master = RedisDriver.masterOf(driver, key)
      if (master === undefined) return unknownNode
      const { name, open } = master
      return Effect.succeed({ name, open: Effect.suspend(() => connection(open(options.limitMillis), true)) })
    })
  return {
    ...(yield* connection(driver, options.own, longestSilence)),
    masterOf,
    keyPrefix: driver.options.keyPrefix ?? "",
    subscriber
  }
})

const switchMaster = "+switch-master"

/**
 * Breaks the connection of a driver whenever a sentinel tells of another master, until the scope closes: a master that
 * was replaced may live on, and grant locks, for those who do not hear of it.
 */
export const leaveOldMasters = (
  driver: Driver,
  { masterName, sentinels }: { readonly masterName: string, readonly sentinels: ReadonlyArray<Redis> },
  limit: number
) =>
  Effect.forEach(sentinels, (sentinel) =>
    Effect.gen(function*() {
      const subscriber = yield* messages(sentinel)
      const closed = Latch.makeUnsafe(false)
      yield* subscriber.listen((message) => {
        if (message.startsWith(`${masterName} `)) driver.disconnect(true)
      }, () => closed.openUnsafe())
      const subscription = Effect.gen(function*() {
        yield* subscriber.ready
        closed.closeUnsafe()
        yield* subscriber.send({ command: "subscribe", args: [switchMaster], limit })
        yield* closed.await
      })
      yield* Effect.forkScoped(Effect.forever(Effect.catch(subscription, () => Effect.sleep("1 second"))))
    }), { discard: true })
