/**
 * What the connection suite needs to know of the toy edge.
 */
import type { ConnectionTest } from "@dlock/core/testing"
import { NodeServices } from "@effect/platform-node"
import { Effect, FileSystem } from "effect"
import type { Scope } from "effect"
import * as Net from "node:net"
import { authority } from "../harness/Certificates.ts"
import { proxy } from "../harness/Proxy.ts"
import { type Fault, toyLock, type ToyOptions } from "./toyLock.ts"
import { type Setup, toyServer } from "./toyServer.ts"

const password = "open-sesame"

const options = ({ host, port }: ConnectionTest.Place): ToyOptions => ({
  addrs: `${host}:${port}`,
  commandTimeout: "1 second"
})

const encrypted = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const { ca, sign } = yield* authority
  const [own, client] = [yield* sign("toy.test", true), yield* sign("client", false)]
  const [cert, key, trusted] = yield* Effect.forEach([own.cert, own.key, ca], (path) => fs.readFileString(path))
  const server = yield* toyServer({ tls: { cert, key, ca: trusted, requestCert: true, rejectUnauthorized: true } })
  return {
    server,
    plain: options(server),
    trusting: { ...options(server), tls: { ca, ...client } },
    trustingNode: { ...options(server), tls: true },
    expectingAnotherName: { ...options(server), tls: { ca, ...client, serverName: "other.test" } }
  }
})

/** The edge with these faults, towards a server set up so. */
export const toyAdapter = (
  { faults = [], setup }: { readonly faults?: ReadonlyArray<Fault>, readonly setup?: Setup } = {}
): ConnectionTest.Adapter<ToyOptions> => {
  const { declaration, layerConfig, make, makeClient } = toyLock(...faults)
  return {
    declaration,
    make,
    layerConfig,
    options,
    environment: ({ host, port }) => ({ DLOCK_TOY_ADDRS: `${host}:${port}` }),
    commandTimeout: "1 second",
    server: toyServer(setup),
    road: proxy,
    locked: Effect.map(toyServer({ password }), (server) => ({
      server,
      password,
      options: (place, password) => ({ ...options(place), password })
    })),
    encrypted: Effect.provide(
      encrypted,
      NodeServices.layer
    ),
    leastRights: Effect.map(toyServer({ forbidden: ["ADMIN"] }), options),
    given: {
      socket: (place) =>
        Effect.map(socketTo(place), (socket) => ({
          make: makeClient(socket),
          isOpen: Effect.sync(() => !socket.destroyed)
        }))
    }
  }
}

const socketTo = ({ host, port }: ConnectionTest.Place): Effect.Effect<Net.Socket, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Net.Socket>((resume) => {
      const socket = Net.connect({ host, port }, () => resume(Effect.succeed(socket)))
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )
