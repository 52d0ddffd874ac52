/**
 * A driver as a connection that is opened again whenever it breaks, and to a server that can carry locks only.
 */
import { Timers } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { Redis } from "ioredis"
import * as commands from "./commands.ts"
import type { Post, Queue } from "./commands.ts"
import * as drivers from "./drivers.ts"
import type { Driver } from "./drivers.ts"
import type { Failure, ToError } from "./errors.ts"
import { isAnswer, passes } from "./errors.ts"
import {
  addressOf,
  type Answer,
  breakOff,
  closed,
  dial,
  hasSentinels,
  ignore,
  type Link,
  listenTo,
  makeLink,
  nextChange,
  notConnected,
  sendBy,
  silent,
  tell,
  until,
  watchSilence,
  write
} from "./link.ts"
import * as messages from "./messages.ts"
import type { Listener, Subscriber } from "./messages.ts"
import { slotOf } from "./names.ts"
import * as server from "./server.ts"
import type { Server } from "./server.ts"

/** A connection for commands, or the connections to the nodes of a cluster; opened again whenever it breaks. */
export interface Connection {
  readonly isCluster: boolean
  /** What the driver puts before every key. We do so ourselves, because our keys are derived from one another. */
  readonly keyPrefix: string
  readonly timers: Timers.Timers
  /** Scripts are called by this queue. */
  readonly queue: Queue
  /** Opens it, looks at the server, and fails with the first thing that goes wrong. */
  readonly open: Effect.Effect<Server, Failure>
  /** Waits until it is open. Fails only when it was closed for good. */
  readonly ready: Effect.Effect<void, Failure>
  /** Writes one command, in this turn of the event loop. Interruption does not take it back. */
  readonly send: (command: string, args: ReadonlyArray<string>, limit: number) => Effect.Effect<Answer, Failure>
  /** The servers that are connected now, as objects that are different after a reconnect or a fail-over. */
  readonly places: () => ReadonlyArray<object>
  /** That of a key. */
  readonly placeOf: (key: string) => object | undefined
  /** Calls a function whenever there may be another place. */
  readonly onPlaces: (listener: () => void) => void
  /** A connection for messages, which ends when it breaks. Each time perhaps to another node. */
  readonly subscribe: (listener: Listener) => Effect.Effect<Subscriber, Failure, Scope.Scope>
  /** Where it leads, as far as that is known. */
  readonly address: () => string | undefined
  readonly toError: (operation: string, failure: Failure) => ReturnType<ToError>
}

/** Opens the connection whenever there is none, and looks at the server, until the scope closes. */
const keepOpen = (
  link: Link,
  prepare: Effect.Effect<void, Failure>,
  onOpen: () => void
): Effect.Effect<never> => {
  const expected = "nodes" in link.driver ? "cluster" : "standalone"
  const send = sendBy(link, write(link), ignore)
  const opened = Effect.suspend(() => {
    link.told = undefined
    link.sentinel = undefined
    return prepare
  }).pipe(
    Effect.andThen(dial(link)),
    Effect.andThen(server.check((command, ...args) => send(command, args, link.limit), expected))
  )
  const session = (tries: number): Effect.Effect<never> =>
    Effect.flatMap(Effect.result(opened), (result) => {
      if (Result.isSuccess(result)) {
        link.session = {}
        link.server = result.success
        onOpen()
        link.change.openUnsafe()
        return Effect.andThen(until(link, () => link.session === undefined), session(0))
      }
      // Where the connection broke, the driver's error says why.
      const failure = isBroken(result.failure) ? link.told ?? result.failure : result.failure
      link.trouble = failure
      if (!waitsFor(link, failure)) link.failure ??= failure
      link.change.openUnsafe()
      if (link.own) breakOff(link)
      return Effect.andThen(Effect.sleep(drivers.pauseBefore(tries)), session(tries + 1))
    })
  return session(0)
}

const isBroken = (failure: Failure): boolean => failure._tag === "Failed" && !isAnswer(failure.cause)

/** Whether `open` goes on after a failure. */
const waitsFor = ({ driver }: Link, failure: Failure): boolean =>
  failure._tag === "Unfit" ? failure.isReplica && hasSentinels(driver) : failure._tag === "Failed" && passes(failure)

/** Waits until there is a session; fails with the first thing that goes wrong. */
const untilOpen = (link: Link): Effect.Effect<Server, Failure> =>
  Effect.suspend(() => {
    if (link.session !== undefined && link.server !== undefined) return Effect.succeed(link.server)
    return link.failure === undefined ? Effect.andThen(nextChange(link), untilOpen(link)) : Effect.fail(link.failure)
  })

const open = (link: Link): Effect.Effect<Server, Failure> => {
  const opened = Effect.timeoutOrElse(untilOpen(link), {
    duration: link.limit,
    orElse: () => Effect.suspend(() => Effect.fail(link.trouble === closed ? silent(link) : link.trouble))
  })
  // A driver without a listener prints its errors; one that is not ours shall go on doing so.
  return link.own ? opened : Effect.scoped(Effect.andThen(
    listenTo(link.driver, "error", (cause) => tell(link, notConnected(cause))),
    opened
  ))
}

const ready = (link: Link): Effect.Effect<void, Failure> =>
  Effect.suspend(() => {
    if (link.session !== undefined) return Effect.void
    const isOver = !link.own && link.driver.status === "end"
    return isOver ? Effect.fail(link.trouble) : Effect.andThen(nextChange(link), ready(link))
  })

/** How a driver is used. */
export interface Use {
  /** Whether we open and close it. */
  readonly own: boolean
  /** How long a server may take to answer, in milliseconds. */
  readonly limit: number
  /** What is done before each connection. */
  readonly prepare: Effect.Effect<void, Failure>
  readonly toError: ToError
}

/** A driver as a connection. One that is our `own` ends with the scope; another is left as it was. */
export const make = Effect.fnUntraced(function*(
  driver: Driver,
  use: Use
): Effect.fn.Return<Connection, never, Scope.Scope> {
  const { limit, own, prepare, toError } = use
  const timers = yield* Timers.make
  const link = yield* makeLink(driver, use, timers)
  const listeners: Array<() => void> = []
  const onPlaces = () => listeners.forEach((listener) => listener())
  for (const event of ["refresh", "+node"]) yield* listenTo(driver, event, onPlaces)

  const raw = write(link)
  const post: Post = (command, args, onReply) =>
    link.session === undefined
      ? onReply({ _tag: "NotConnected", cause: causeOf(link.trouble) }, undefined, true)
      : raw(command, args, onReply)
  // A cluster has several connections, and the driver of another its own settings.
  const onLate = own && !("nodes" in driver) ? watchSilence(link) : ignore
  const isCluster = "nodes" in driver
  const queue = commands.make({ isCluster, post, together: (write) => together(link, write), timers, onLate })
  yield* Effect.forkScoped(keepOpen(link, prepare, onPlaces))
  if (!("nodes" in driver) && hasSentinels(driver)) yield* messages.leaveOldMasters(driver, link, prepare)

  let turn = 0
  return {
    isCluster,
    keyPrefix: driver.options.keyPrefix ?? "",
    timers,
    queue,
    open: open(link),
    ready: ready(link),
    send: sendBy(link, post, onLate),
    places: () => link.session === undefined ? [] : "nodes" in driver ? driver.nodes("master") : [link.session],
    placeOf: (key) => link.session !== undefined && "nodes" in driver ? nodeOf(driver, key) : link.session,
    onPlaces: (listener) => listeners.push(listener),
    subscribe: (listener) =>
      Effect.suspend(() => {
        const nodes = "nodes" in driver ? driver.nodes() : [driver]
        const node = nodes[turn++ % nodes.length]
        if (node === undefined) return Effect.fail(notConnected(new Error("no node of the cluster is known")))
        return Effect.andThen(
          prepare,
          Effect.suspend(() => messages.open(drivers.forMessages(node, limit), limit, timers, listener))
        )
      }),
    address: () => addressOf(driver),
    toError: (operation, failure) => toError(operation, failure, addressOf(driver))
  }
})

const causeOf = (failure: Failure): unknown =>
  "cause" in failure ? failure.cause : new Error("detail" in failure ? failure.detail : "no answer in time")

/** What is written meanwhile goes out at once. A cluster has a connection for each node, chosen by the driver. */
const together = ({ driver }: Link, write: () => void): void => {
  const stream = "stream" in driver && driver.status === "ready" ? driver.stream : undefined
  if (stream === undefined) return write()
  stream.cork()
  process.nextTick(() => stream.uncork())
  write()
}

const nodeOf = (driver: Exclude<Driver, Redis>, key: string): object | undefined => {
  const name = driver.slots[slotOf(key)]?.[0]
  return driver.nodes("master").find(({ options }) => `${options.host}:${options.port}` === name)
}
