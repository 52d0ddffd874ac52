/**
 * Servers that are none: they listen, and keep silent, hang up, or speak of something else.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Socket } from "node:net"
import { createServer } from "node:net"
import type { Place } from "./Adapter.ts"

/** Something that listens, and counts the connections. */
export interface Stranger extends Place {
  /** How many connections were accepted so far, with those that were made and only wait for this process. */
  readonly accepted: Effect.Effect<number>
  /** How many are open. */
  readonly open: () => number
}

const host = "127.0.0.1"

/** On a busy machine a time is over before the process has come to what happened in it. */
const turns = Effect.repeat(Effect.sleep(1), { times: 20 })

/** Listens until the scope closes, on a free port or on this one. */
const listen = (greet: (socket: Socket) => void, port = 0): Effect.Effect<Stranger, never, Scope.Scope> =>
  Effect.suspend(() => {
    const sockets = new Set<Socket>()
    let accepted = 0
    const server = createServer((socket) => {
      accepted++
      sockets.add(socket)
      socket.on("error", () => {})
      socket.on("close", () => sockets.delete(socket))
      greet(socket)
    })
    const open = Effect.callback<Stranger>((resume) => {
      server.on("error", (error) => resume(Effect.die(error)))
      server.listen(port, host, () => {
        const address = server.address()
        if (typeof address !== "object" || address === null) return resume(Effect.die("it listens nowhere"))
        resume(
          Effect.succeed({
            host,
            port: address.port,
            accepted: Effect.map(turns, () => accepted),
            open: () => sockets.size
          })
        )
      })
    })
    const close = Effect.callback<void>((resume) => {
      server.close(() => resume(Effect.void))
      sockets.forEach((socket) => socket.destroy())
    })
    return Effect.acquireRelease(open, () => close)
  })

/** Accepts, and says nothing. */
export const silent: Effect.Effect<Stranger, never, Scope.Scope> = listen((socket) => socket.resume())

/** Accepts, and ends the connection at once. */
export const hangingUp = (port?: number): Effect.Effect<Stranger, never, Scope.Scope> =>
  listen((socket) => socket.destroy(), port)

/** Greets at once with what no client of a lock expects, and answers everything alike. */
export const speaking = (text: string): Effect.Effect<Stranger, never, Scope.Scope> =>
  listen((socket) => {
    socket.write(text)
    socket.on("data", () => socket.write(text))
  })

/** A place where nothing listens. */
export const nothing: Effect.Effect<Place> = Effect.scoped(Effect.map(silent, ({ host, port }) => ({ host, port })))
