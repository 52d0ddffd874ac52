/**
 * A TCP proxy that freezes the connections that exist and lets new ones through: what a client sent before arrives when
 * they thaw, after what it sent later over another connection. It counts commands, and may lead to another server.
 */
import { Effect } from "effect"
import * as Net from "node:net"

export interface Relay {
  readonly host: string
  readonly port: number
  readonly addr: string
  /** Holds back what clients send over the connections that are open now. */
  readonly freeze: Effect.Effect<void>
  /** Whether connections that are opened from now on are frozen from the beginning. Default: no. */
  readonly freezeNew: (isFrozen: boolean) => Effect.Effect<void>
  /** Lets the client see the frozen connections break; what they carry is still under way. */
  readonly breakOff: Effect.Effect<void>
  /** Delivers what was held back, also of connections that the client has closed since. */
  readonly thaw: Effect.Effect<void>
  /** Breaks every connection; new ones lead to this server. */
  readonly to: (target: Address) => Effect.Effect<void>
  /** How many commands clients have sent so far. */
  readonly commands: Effect.Effect<number>
}

interface Address {
  readonly host: string
  readonly port: number
}

interface Link {
  readonly client: Net.Socket
  readonly server: Net.Socket
  held: Array<Buffer> | undefined
}

export const relay = Effect.fnUntraced(function*(first: Address) {
  let target = first
  let commands = 0
  const links = new Set<Link>()
  let isNewFrozen = false
  const listener = Net.createServer({ noDelay: true }, (client) => {
    const server = Net.connect({ host: target.host, port: target.port, noDelay: true })
    const link: Link = { client, server, held: isNewFrozen ? [] : undefined }
    links.add(link)
    // A command is an array, and no argument of ours contains this.
    client.on("data", (bytes) => commands += bytes.toString("latin1").match(/(^|\r\n)\*\d+\r\n/g)?.length ?? 0)
    client.on("data", (bytes) => link.held === undefined ? server.write(bytes) : link.held.push(bytes))
    client.on("close", () => link.held === undefined && server.end())
    server.on("data", (bytes) => client.write(bytes))
    server.on("close", () => {
      links.delete(link)
      client.destroy()
    })
    for (const socket of [client, server]) socket.on("error", () => {})
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      listener.listen({ host: "127.0.0.1", port: 0 }, () => resume(Effect.void))
    }),
    () =>
      Effect.sync(() => {
        listener.close()
        for (const { client, server } of links) {
          client.destroy()
          server.destroy()
        }
      })
  )
  const address = listener.address()
  const port = typeof address === "object" && address !== null ? address.port : 0
  const relay: Relay = {
    host: "127.0.0.1",
    port,
    addr: `127.0.0.1:${port}`,
    freeze: Effect.sync(() => {
      for (const link of links) link.held ??= []
    }),
    freezeNew: (isFrozen) =>
      Effect.sync(() => {
        isNewFrozen = isFrozen
      }),
    breakOff: Effect.sync(() => {
      for (const link of links) if (link.held !== undefined) link.client.destroy()
    }),
    thaw: Effect.sync(() => {
      for (const link of links) {
        for (const bytes of link.held ?? []) link.server.write(bytes)
        link.held = undefined
        if (link.client.closed) link.server.end()
      }
    }),
    to: (next) =>
      Effect.sync(() => {
        target = next
        for (const { client, server } of links) {
          client.destroy()
          server.destroy()
        }
      }),
    commands: Effect.sync(() => commands)
  }
  return relay
})
