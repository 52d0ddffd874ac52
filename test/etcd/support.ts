/**
 * An etcd server for tests, a bare client to look behind the backend's back, and what the conformance suite wants to
 * know of the backend.
 */
import type { LockTest } from "@dlock/core/testing"
import { EtcdLock } from "@dlock/etcd"
import { Context, Effect, Layer } from "effect"
import type { Duration, Scope } from "effect"
import { Etcd3 } from "etcd3"
import * as Net from "node:net"
import { etcd, etcdCluster } from "../harness/EtcdServer.ts"
import type { Options } from "../harness/EtcdServer.ts"
import { proxy } from "../harness/Proxy.ts"

/** Running servers, and a driver of our own. */
export class Etcd extends Context.Service<Etcd, {
  readonly endpoints: ReadonlyArray<string>
  readonly bare: Etcd3
}>()("test/etcd/Etcd") {
  static readonly layer = (options: Options = {}) =>
    Layer.effect(
      Etcd,
      Effect.gen(function*() {
        const endpoints = [(yield* etcd(options)).addr]
        return { endpoints, bare: yield* connect(endpoints) }
      })
    )

  static readonly layerCluster = Layer.effect(
    Etcd,
    Effect.gen(function*() {
      const { endpoints } = yield* etcdCluster()
      return { endpoints, bare: yield* connect(endpoints) }
    })
  )
}

/** A bare driver, closed with the scope. */
export const connect = (
  hosts: ReadonlyArray<string>,
  auth?: { readonly username: string, readonly password: string }
): Effect.Effect<Etcd3, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new Etcd3({ hosts: [...hosts], ...(auth !== undefined && { auth }) })),
    (driver) => Effect.sync(() => driver.close())
  )

/** Every key, in the order in which they came. */
export const keysOf = (bare: Etcd3, prefix = ""): Effect.Effect<ReadonlyArray<string>> =>
  Effect.promise(() => bare.getAll().prefix(prefix).sort("Create", "Ascend").keys())

/** A name as the backend writes it. */
export const escaped = (key: string): string => key.replaceAll("%", "%25").replaceAll("/", "%2F")

export const lineOf = (bare: Etcd3, key: string): Effect.Effect<ReadonlyArray<string>> =>
  keysOf(bare, `${escaped(key)}/`)

/** The lease of each who holds or waits, in the order in which they came. */
export const leasesOf = (bare: Etcd3, key: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.promise(async () => {
    const { kvs } = await bare.getAll().prefix(`${escaped(key)}/`).sort("Create", "Ascend").exec()
    return kvs.map(({ lease }) => lease)
  })

export const revoke = (bare: Etcd3, lease: string | undefined): Effect.Effect<void> =>
  Effect.asVoid(Effect.promise(() => bare.leaseClient.leaseRevoke({ ID: lease ?? "0" })))

/** Deletes everything in the line of a lock. */
export const clear = (bare: Etcd3, key: string): Effect.Effect<void> =>
  Effect.asVoid(Effect.promise(() => bare.delete().prefix(`${escaped(key)}/`).exec()))

export const capabilities = (commandTimeout: Duration.Input): LockTest.Capabilities<Etcd> => ({
  clock: "live",
  tenure: "session",
  ttl: "request",
  minTtl: "2 seconds",
  granularity: "1 second",
  commandTimeout,
  fifo: true,
  pushesLoss: true,
  inLine: (key) => Effect.flatMap(Etcd, ({ bare }) => Effect.map(lineOf(bare, key), (keys) => keys.length)),
  mortal: Effect.gen(function*() {
    const { endpoints } = yield* Etcd
    const roads = yield* Effect.forEach(endpoints, roadTo)
    const client = yield* EtcdLock.make({ endpoints: roads.map(({ addr }) => addr), commandTimeout })
    return { client, cut: Effect.forEach(roads, (road) => road.drop("both"), { discard: true }) }
  }),
  revocable: Effect.gen(function*() {
    const { bare, endpoints } = yield* Etcd
    const client = yield* EtcdLock.make({ endpoints })
    return { client, revoke: ({ key }) => clear(bare, key) }
  })
})

/** A proxy in front of an endpoint. */
export const roadTo = (endpoint: string) => {
  const [host = "", port = ""] = endpoint.split(":")
  return proxy({ host, port: Number(port) })
}

/**
 * A proxy that freezes the connections of now, while new ones pass: what a firewall does that has forgotten them. When
 * they thaw, what was sent on them arrives, with the pauses that were between.
 */
export const freezer = (endpoint: string) =>
  Effect.acquireRelease(
    Effect.callback<Freezer>((resume) => {
      const freezer = new Freezer(endpoint)
      freezer.listener.listen(0, "127.0.0.1", () => resume(Effect.succeed(freezer)))
    }),
    (freezer) => Effect.sync(() => freezer.close())
  )

class Freezer {
  readonly listener: Net.Server
  readonly freeze = Effect.sync(() => {
    for (const socket of this.sockets) if (!this.frozen.has(socket)) this.frozen.set(socket, [])
  })
  readonly thaw = Effect.sync(() => {
    const first = Math.min(...[...this.frozen.values()].flatMap((held) => held.slice(0, 1)).map(({ at }) => at))
    for (const held of this.frozen.values()) {
      for (const { at, bytes, to } of held) this.timers.push(setTimeout(() => to.write(bytes), at - first))
    }
    this.frozen.clear()
  })
  private readonly sockets = new Set<Net.Socket>()
  private readonly frozen = new Map<
    Net.Socket,
    Array<{ readonly at: number, readonly bytes: Buffer, readonly to: Net.Socket }>
  >()
  private readonly timers: Array<NodeJS.Timeout> = []

  constructor(endpoint: string) {
    const [host = "", port = ""] = endpoint.split(":")
    this.listener = Net.createServer((client) => {
      const server = Net.connect(Number(port), host)
      this.forward(client, server)
      this.forward(server, client)
    })
  }

  get addr(): string {
    const address = this.listener.address()
    return `127.0.0.1:${typeof address === "object" ? address?.port : 0}`
  }

  close(): void {
    this.listener.close()
    for (const timer of this.timers) clearTimeout(timer)
    for (const socket of this.sockets) socket.destroy()
  }

  private forward(from: Net.Socket, to: Net.Socket): void {
    this.sockets.add(from)
    from.on("data", (bytes) => {
      const held = this.frozen.get(from)
      if (held === undefined) to.write(bytes)
      else held.push({ at: performance.now(), bytes, to })
    })
    from.on("error", () => {})
    from.on("close", () => {
      this.sockets.delete(from)
      if (!this.frozen.has(from)) to.destroy()
    })
  }
}
