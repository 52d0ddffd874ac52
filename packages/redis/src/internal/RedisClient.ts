/**
 * The driver at the edge: the only file that listens to its events and takes its callbacks.
 *
 * ioredis is told to keep nothing: no queue while it is not connected, nothing sent again after a reconnect. Whether a
 * request is repeated, and for how long somebody waits, is decided by us (`RedisCall`), for the driver sends a command
 * again even after its own `commandTimeout` has rejected it.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type { RedisOptions } from "ioredis"
import { Command, Redis } from "ioredis"
import * as Deadlines from "./Deadlines.ts"
import * as RedisError from "./RedisError.ts"

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

/** One command. */
export interface Request {
  readonly command: string
  /** Called when it is written. */
  readonly args: (sentAt: bigint) => Array<string>
  /** How long to wait for the answer, in ns. */
  readonly limit: bigint
  /** Called when the server answers, also if nobody waits for it any more. */
  readonly onAnswer?: (() => void) | undefined
}

/** A connection, which the driver opens again whenever it breaks. */
export interface RedisClient {
  /** What the driver puts before every key. We do so ourselves, because our keys are derived from one another. */
  readonly keyPrefix: string
  /** Opens it, and fails with the first thing that goes wrong. */
  readonly connect: Effect.Effect<void, Failure>
  /** Waits until it is open. Fails only when it was closed for good. */
  readonly ready: Effect.Effect<void, Failure>
  /** Writes one command now. Interruption does not take it back. */
  readonly send: (request: Request) => Effect.Effect<Answer, Failure>
  /** `Clock.monotonicTimeNanos` */
  readonly now: () => bigint
  /** Another connection to the same server. */
  readonly duplicate: Effect.Effect<Subscriber, never, Scope.Scope>
}

/** A connection on which messages arrive. */
export interface Subscriber extends RedisClient {
  /** Called for every message, and whenever the connection breaks: the server then forgets what was subscribed. */
  readonly listen: (onMessage: (message: string) => void, onClose: () => void) => Effect.Effect<void>
}

/** What every driver of our own is told. `limitMillis` is how long a server may take to answer. */
const settings = (limitMillis: number) => ({
  replyMapping: "legacy",
  lazyConnect: true,
  connectTimeout: limitMillis,
  // A server that was asked and says nothing for longer sits behind a dead connection: a new one may reach it.
  socketTimeout: limitMillis + 100,
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  autoResubscribe: false,
  // What is under way on a connection that breaks fails at once.
  maxRetriesPerRequest: 0,
  retryStrategy: (times: number) => Math.min(25 * 2 ** Math.min(times, 6), 1000),
  // The address leads to a replica now: connecting again may find the master.
  reconnectOnError: (error: Error) => error.message.includes("READONLY")
} as const satisfies RedisOptions)

const ignore = () => {}

const wrap = Effect.fnUntraced(function*(
  driver: Redis,
  limitMillis: number,
  own: boolean
): Effect.fn.Return<Subscriber, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const now = () => clock.monotonicTimeNanosUnsafe()
  const deadlines = yield* Deadlines.make
  const change = Latch.makeUnsafe(false)
  /** Why there is no connection now. */
  let trouble: unknown
  /** What went wrong since `connect`, also if there is a connection in spite of it. */
  let failure: unknown

  const onReady = () => {
    trouble = undefined
    change.openUnsafe()
  }
  const onError = (cause: unknown) => {
    trouble = cause
    failure = cause
    change.openUnsafe()
  }
  const onClose = () => onError(trouble ?? new Error("the connection was closed"))
  const listenTo = (event: string, listener: (cause: unknown) => void) =>
    Effect.acquireRelease(
      Effect.sync(() => driver.on(event, listener)),
      () => Effect.sync(() => driver.off(event, listener))
    )
  yield* listenTo("ready", onReady)
  yield* listenTo("close", onClose)
  yield* listenTo("end", onClose)
  if (own) {
    yield* Effect.sync(() => driver.on("error", onError))
    yield* Effect.addFinalizer(() => Effect.sync(() => driver.disconnect()))
  }

  const notConnected = (cause: unknown) => Effect.fail<Failure>({ _tag: "NotConnected", cause })
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

  const send = (request: Request): Effect.Effect<Answer, Failure> =>
    Effect.callback((resume) => {
      if (driver.status !== "ready") return resume(notConnected(trouble))
      const sentAt = now()
      const deadline = { at: sentAt + request.limit, expire: () => resume(Effect.fail({ _tag: "Late" })) }
      const command = new Command(
        request.command,
        request.args(sentAt),
        { replyEncoding: "utf8" },
        (cause, reply: unknown) => {
          deadlines.remove(deadline)
          const failed = cause !== null && cause !== undefined
          if (!failed || RedisError.isAnswer(cause)) request.onAnswer?.()
          resume(failed ? Effect.fail({ _tag: "Failed", cause }) : Effect.succeed({ reply, sentAt }))
        }
      )
      deadlines.add(deadline)
      driver.sendCommand(command)
      return Effect.sync(() => deadlines.remove(deadline))
    })

  const listen: Subscriber["listen"] = (onMessage, onClose) =>
    Effect.sync(() => {
      driver.on("message", (_, message) => onMessage(message))
      driver.on("close", onClose)
    })

  return {
    keyPrefix: driver.options.keyPrefix ?? "",
    connect,
    ready: Effect.andThen(start, untilReady),
    send,
    now,
    duplicate: Effect.suspend(() => wrap(driver.duplicate(settings(limitMillis)), limitMillis, true)),
    listen
  }
})

/** A connection of our own, not open yet; it ends with the scope. */
export const make = (options: RedisOptions, limitMillis: number) =>
  Effect.suspend(() => wrap(new Redis({ ...options, ...settings(limitMillis) }), limitMillis, true))

/** A driver that somebody else opened and will close. */
export const fromDriver = (driver: Redis, limitMillis: number) => wrap(driver, limitMillis, false)
