/**
 * The driver at the edge: the only file that listens to its events and takes its callbacks.
 */
import { Timers } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import { Command } from "ioredis"
import type { EventEmitter } from "node:events"
import type { Post } from "./commands.ts"
import * as drivers from "./drivers.ts"
import type { Driver } from "./drivers.ts"
import type { Failure } from "./errors.ts"
import { isReadOnly } from "./errors.ts"
import type { Server } from "./server.ts"

/** What the server answered, and the monotonic time in milliseconds just before it was asked. */
export interface Answer {
  readonly reply: unknown
  readonly sentAt: number
}

/** A driver, and what its events told. */
export interface Link {
  readonly driver: Driver
  /** Whether we open and close it. */
  readonly own: boolean
  /** How long a server may take to answer, in milliseconds. */
  readonly limit: number
  readonly timers: Timers.Timers
  /** Opened at each event. */
  readonly change: Latch.Latch
  /** Set while there is a connection to a server that can carry locks: another object for each connection. */
  session: object | undefined
  server: Server | undefined
  /** Why there is no connection now. */
  trouble: Failure
  /** What the driver told during the last try, and what a sentinel that could not help said before. */
  told: Failure | undefined
  sentinel: unknown
  /** What went wrong since `open` began, also if there is a connection in spite of it. */
  failure: Failure | undefined
  /** How many commands are unanswered, and when something was last heard or, after silence, asked. */
  unanswered: number
  heardAt: number
}

export const notConnected = (cause: unknown): Failure => ({ _tag: "NotConnected", cause })

export const closed = notConnected(new Error("the connection is closed"))

export const ignore = () => {}

export const makeLink = Effect.fnUntraced(function*(
  driver: Driver,
  { limit, own }: { readonly own: boolean, readonly limit: number },
  timers: Timers.Timers
): Effect.fn.Return<Link, never, Scope.Scope> {
  const link: Link = {
    driver,
    own,
    limit,
    timers,
    change: Latch.makeUnsafe(false),
    session: undefined,
    server: undefined,
    trouble: closed,
    told: undefined,
    sentinel: undefined,
    failure: undefined,
    unanswered: 0,
    heardAt: 0
  }
  const onClose = () => {
    link.session = undefined
    link.change.openUnsafe()
  }
  const onError = (cause: unknown) => tell(link, notConnected(link.sentinel ?? hinted(link, cause)))
  const onSentinelError = (cause: unknown) => {
    link.sentinel = cause
  }
  yield* listenTo(driver, "ready", () => link.change.openUnsafe())
  yield* listenTo(driver, "close", onClose)
  yield* listenTo(driver, "end", onClose)
  yield* listenTo(driver, "sentinelError", onSentinelError)
  if (own) {
    // For good: a driver without a listener prints what comes after the end.
    const events: EventEmitter = driver
    events.on("error", onError)
    yield* Effect.addFinalizer(() => Effect.sync(() => breakOff(link)))
  }
  return link
})

export const listenTo = (driver: Driver, event: string, listener: (cause: unknown) => void) => {
  const events: EventEmitter = driver
  return Effect.acquireRelease(
    Effect.sync(() => events.on(event, listener)),
    () => Effect.sync(() => events.off(event, listener))
  )
}

export const tell = (link: Link, failure: Failure): void => {
  link.told = failure
  link.trouble = failure
  link.failure ??= failure
  link.change.openUnsafe()
}

/** At its limit of clients a server closes the connection right after it was opened. */
const hinted = ({ driver: { status } }: Link, cause: unknown): unknown =>
  status === "connect" && cause instanceof Error && "code" in cause && /EPIPE|ECONNRESET/.test(String(cause.code))
    ? new Error(`${cause.message}: the server closed the connection at once, as at its max number of clients`)
    : cause

export const nextChange = ({ change }: Link) =>
  Effect.suspend(() => {
    change.closeUnsafe()
    return change.await
  })

export const until = (link: Link, isMet: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => isMet() ? Effect.void : Effect.andThen(nextChange(link), until(link, isMet)))

/** Breaks a connection of our own, without waiting for the other side. */
export const breakOff = ({ driver }: Link): void => {
  driver.disconnect()
  if ("stream" in driver) driver.stream?.destroy()
}

/**
 * Breaks a connection on which the server says nothing more: a new one may reach it. The driver has a timer for each
 * command for that (`socketTimeout`), which costs as much as the command.
 */
export const watchSilence = (link: Link): (limit: number) => void => {
  let heardAt = 0
  const end = Timers.timer(() => {
    if (link.unanswered > 0 && link.heardAt === heardAt) breakOff(link)
    else look(link.limit)
  })
  const look = (limit: number): void => {
    if (link.unanswered === 0) return
    // Later than now: where this process stood still, the answer may have come meanwhile.
    const due = Math.max(link.heardAt + drivers.longestSilence(limit), link.timers.now() + drivers.grace)
    if (end.slot !== -1 && end.due <= due) return
    heardAt = link.heardAt
    link.timers.set(end, due)
  }
  return look
}

/** Writes a command, whether there is a session or not. */
export const write = (link: Link): Post => (command, args, onReply) => {
  if (link.unanswered++ === 0) link.heardAt = link.timers.now()
  // Not with the driver's callbacks: a command keeps its own, and with it what follows, long after it was answered.
  const sending = new Command(command, args, { replyEncoding: "utf8" })
  // Some drivers write again what a broken connection left unanswered.
  const toWritable = sending.toWritable.bind(sending)
  let writes = 0
  sending.toWritable = (socket) => {
    writes++
    return toWritable(socket)
  }
  const settle = (failure: Failure | undefined, reply?: unknown) => {
    link.unanswered--
    link.heardAt = link.timers.now()
    onReply(failure, reply, writes <= 1)
  }
  sending.promise.then(
    (reply: unknown) => settle(undefined, reply),
    (cause: unknown) => {
      if (isReadOnly(cause)) leave(link)
      settle({ _tag: "Failed", cause })
    }
  )
  link.driver.sendCommand(sending)
}

/** The address leads to a replica now: it is looked at again, over a new connection if we may. */
const leave = (link: Link): void => {
  if ("nodes" in link.driver) return
  link.session = undefined
  if (link.own) breakOff(link)
  link.change.openUnsafe()
}

/** Sends a command with a time limit. */
export const sendBy =
  ({ timers }: Link, post: Post, onLate: (limit: number) => void) =>
  (command: string, args: ReadonlyArray<string>, limit: number): Effect.Effect<Answer, Failure> =>
    Effect.callback((resume) => {
      const sentAt = timers.now()
      const late = Timers.timer(() => {
        resume(Effect.fail({ _tag: "Late" }))
        onLate(limit)
      })
      timers.set(late, sentAt + limit)
      post(command, [...args], (failure, reply) => {
        timers.clear(late)
        resume(failure === undefined ? Effect.succeed({ reply, sentAt }) : Effect.fail(failure))
      })
      return Effect.sync(() => timers.clear(late))
    })

const start = ({ driver, own }: Link): void => {
  if (driver.status === "wait" || (own && driver.status === "end")) driver.connect().catch(ignore)
}

/** Waits until the driver is connected, for no longer than the limit. */
export const dial = (link: Link): Effect.Effect<void, Failure> => {
  const { driver, limit } = link
  const failed = Effect.suspend(() => Effect.fail(link.trouble))
  return Effect.suspend(() => {
    start(link)
    return until(link, () => driver.status === "ready" || driver.status === "end")
  }).pipe(
    Effect.timeoutOrElse({
      duration: limit,
      orElse: () => Effect.suspend(() => Effect.fail(silent(link)))
    }),
    Effect.andThen(Effect.suspend(() => driver.status === "ready" ? Effect.void : failed))
  )
}

export const silent = ({ driver, limit }: Link): Failure => {
  return driver.status === "connecting" && "tls" in driver.options && driver.options.tls !== undefined
    ? notConnected(new Error(`no TLS connection within ${limit} ms; if the port does not speak TLS, set tls to false`))
    : { _tag: "Late" }
}

export const hasSentinels = ({ options }: Driver): boolean => "sentinels" in options && options.sentinels != null

/** Where a driver leads, as far as that is known. */
export const addressOf = (driver: Driver): string | undefined => {
  if ("nodes" in driver) return undefined
  const { stream } = driver
  if (hasSentinels(driver)) {
    return stream?.remoteAddress === undefined ? undefined : `${stream.remoteAddress}:${stream.remotePort}`
  }
  const { host = "localhost", path, port = 6379 } = driver.options
  return path ?? (host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`)
}
