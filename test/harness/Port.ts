/**
 * Free ports of 127.0.0.1.
 *
 * A port is held by a UDP socket of the same number for as long as its scope is open: servers use TCP only, so no server
 * is disturbed, no two test processes choose the same port, a server that is down keeps its port, and the kernel gives
 * everything back when the test process dies.
 *
 * The ports lie below every system's range of ephemeral ports: a client that reconnects to a server that is down may
 * else be given the server's own port, and meet itself. Redis Cluster takes the port 10,000 above as well.
 */
import type { Scope } from "effect"
import { Effect } from "effect"
import * as Dgram from "node:dgram"
import * as Net from "node:net"
import { HarnessError } from "./HarnessError.ts"

/** Where every server of the harness listens. */
export const host = "127.0.0.1"

const first = 10_000
const count = 10_000
const busOffset = 10_000

const hold = (port: number): Effect.Effect<Dgram.Socket | undefined> =>
  Effect.callback((resume) => {
    const socket = Dgram.createSocket("udp4")
    socket.once("error", () => {
      socket.close()
      resume(Effect.succeed(undefined))
    })
    socket.bind({ port, address: host, exclusive: true }, () => {
      socket.unref()
      resume(Effect.succeed(socket))
    })
  })

const isFree = (port: number): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const server = Net.createServer()
    server.once("error", () => resume(Effect.succeed(false)))
    server.listen({ port, host, exclusive: true }, () => server.close(() => resume(Effect.succeed(true))))
  })

const next = (port: number): number => first + (port - first + 1) % count

/** A port that is free, and stays ours until the scope closes. */
export const reserve: Effect.Effect<number, HarnessError, Scope.Scope> = Effect.gen(function*() {
  let port = first + Math.floor(Math.random() * count)
  for (let attempt = 0; attempt < count; attempt++, port = next(port)) {
    const socket = yield* Effect.acquireRelease(
      hold(port),
      (socket) => Effect.sync(() => socket?.close())
    )
    if (socket === undefined) continue
    if ((yield* isFree(port)) && (yield* isFree(port + busOffset))) return port
  }
  return yield* new HarnessError({ server: host, problem: `no free port from ${first} on` })
})

/** Several ports at once. */
export const reserveMany = (amount: number): Effect.Effect<ReadonlyArray<number>, HarnessError, Scope.Scope> =>
  Effect.replicateEffect(reserve, amount)
