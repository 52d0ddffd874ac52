/**
 * Speaks TLS before a server that does not.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import * as Net from "node:net"
import * as Tls from "node:tls"
import { host } from "./Port.ts"

export interface Place {
  readonly host: string
  readonly port: number
}

/** A place on a free port whose connections end up, decrypted, at the server; until the scope closes. */
export const tlsFront = (server: Place, options: Tls.TlsOptions): Effect.Effect<Place, never, Scope.Scope> =>
  Effect.suspend(() => {
    const sockets = new Set<Net.Socket>()
    const front = Tls.createServer(options, (client) => {
      const upstream = Net.connect(server.port, server.host)
      for (const [one, other] of [[client, upstream], [upstream, client]] as const) {
        sockets.add(one)
        one.on("error", () => other.destroy())
        one.on("close", () => {
          sockets.delete(one)
          other.destroy()
        })
        one.pipe(other)
      }
    })
    front.on("tlsClientError", () => {})
    return Effect.acquireRelease(
      Effect.callback<Place>((resume) => {
        front.listen(0, host, () => {
          const address = front.address()
          if (typeof address === "object" && address !== null) resume(Effect.succeed({ host, port: address.port }))
        })
      }),
      () =>
        Effect.callback<void>((resume) => {
          front.close(() => resume(Effect.void))
          sockets.forEach((socket) => socket.destroy())
        })
    )
  })
