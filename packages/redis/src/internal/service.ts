/**
 * The Redis service of Effect as a connection. Its driver connects and sends again by itself and does not tell, so every
 * answer may have another copy under way, and a reconnect goes unnoticed.
 */
import type { LockBackendError } from "@dlock/core"
import { Timers } from "@dlock/core/backend"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Redis, RedisError } from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import type { Connection } from "./client.ts"
import * as commands from "./commands.ts"
import type { Post } from "./commands.ts"
import * as errors from "./errors.ts"
import type { Failure } from "./errors.ts"
import type { Answer } from "./link.ts"
import type { Listener, Subscriber } from "./messages.ts"
import * as server from "./server.ts"

type Service = Redis["Service"]

/** What a server refuses begins with a code in capitals, whatever the driver calls the error. */
const asFailure = ({ cause }: RedisError): Failure => {
  const message = cause instanceof Error ? cause.message : String(cause)
  const isAnswer = /^[A-Z]{2,}( |$)/.test(message)
  return { _tag: "Failed", cause: isAnswer ? Object.assign(new Error(message), { name: "ReplyError" }) : cause }
}

const sendBy =
  (service: Service, timers: Timers.Timers) =>
  (command: string, args: ReadonlyArray<string>, limit: number): Effect.Effect<Answer, Failure> =>
    Effect.suspend(() => {
      const sentAt = timers.now()
      return service.send(command.toUpperCase(), ...args).pipe(
        Effect.mapBoth({ onFailure: asFailure, onSuccess: (reply) => ({ reply, sentAt }) }),
        Effect.timeoutOrElse({ duration: limit, orElse: () => Effect.fail<Failure>({ _tag: "Late" }) })
      )
    })

/** Channels, each with a subscription of its own. */
const subscriberOf = Effect.fnUntraced(function*(
  service: Service,
  { onClose, onMessage }: Listener
): Effect.fn.Return<Subscriber, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const open = new Map<string, Scope.Closeable>()
  const listen = (channel: string) =>
    Effect.gen(function*() {
      const own = yield* Scope.fork(scope)
      open.set(channel, own)
      const messages = yield* Scope.provide(service.subscribe(channel), own)
      const told = Effect.forever(Effect.map(Queue.take(messages), ({ message }) => onMessage(channel, message)))
      const ended = { failure: Option.none<RedisError>() }
      const end = (cause: Cause.Cause<RedisError>) =>
        Effect.sync(() => {
          ended.failure = Cause.findErrorOption(cause)
          onClose()
        })
      yield* Effect.forkIn(Effect.catchCause(told, end), own, { startImmediately: true })
      // A subscription that was refused is a queue that has failed already.
      if (Option.isSome(ended.failure)) yield* Effect.fail(asFailure(ended.failure.value))
    })
  return {
    subscribe: (channels) => Effect.forEach(channels, listen, { discard: true }),
    unsubscribe: (channels) =>
      Effect.forEach(channels, (channel) => {
        const own = open.get(channel)
        open.delete(channel)
        return own === undefined ? Effect.void : Scope.close(own, Exit.void)
      }, { discard: true }),
    ping: Effect.void
  }
})

/** The service as a connection, which the caller opened and will close. */
export const use = Effect.fnUntraced(function*(
  backend: string,
  service: Service,
  limit: number
): Effect.fn.Return<Connection, LockBackendError, Scope.Scope> {
  const timers = yield* Timers.make
  const scope = yield* Effect.scope
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const place = {}
  const toError = errors.make(backend)
  const post: Post = (command, args, onReply) => {
    const sending = fork(Effect.forkIn(service.send(command.toUpperCase(), ...args), scope))
    const settled = Effect.flatMap(Fiber.join(sending), Fiber.await)
    fork(Effect.map(settled, (exit) => {
      if (Exit.isSuccess(exit)) return onReply(undefined, exit.value, false)
      const failure = Exit.findErrorOption(exit)
      onReply(
        failure._tag === "Some" ? asFailure(failure.value) : { _tag: "Failed", cause: new Error("interrupted") },
        undefined,
        false
      )
    }))
  }
  const send = sendBy(service, timers)
  return {
    isCluster: false,
    keyPrefix: "",
    timers,
    queue: commands.make({ isCluster: false, post, together: (write) => write(), timers, onLate: () => {} }),
    open: server.check((command, ...args) => send(command, args, limit), "standalone"),
    ready: Effect.void,
    send,
    places: () => [place],
    placeOf: () => place,
    onPlaces: () => {},
    subscribe: (listener) => subscriberOf(service, listener),
    address: () => undefined,
    toError: (operation, failure) => toError(operation, failure)
  }
})
