/**
 * An etcd server for tests, a bare client to look behind the backend's back, and what the conformance suite wants to
 * know of the backend.
 */
import type { LockRequest } from "@dlock/core"
import type { LockTest } from "@dlock/core/testing"
import { EtcdLock } from "@dlock/etcd"
import { Clock, Context, Deferred, Duration, Effect, Layer } from "effect"
import type { Scope } from "effect"
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

/** A request as core makes them, that remembers what it was told. */
export interface Attempt extends LockRequest {
  readonly losses: Array<string>
  readonly lost: Deferred.Deferred<void>
}

let attempts = 0

export const attempt = (key: string, ttl: Duration.Input = "30 seconds"): Attempt => {
  const losses: Array<string> = []
  const lost = Deferred.makeUnsafe<void>()
  return {
    key,
    owner: `test/${++attempts}-${crypto.randomUUID()}`,
    ttl: Duration.fromInputUnsafe(ttl),
    losses,
    lost,
    onLost: (reason) => {
      losses.push(reason)
      Deferred.doneUnsafe(lost, Effect.void)
    }
  }
}

/** A key that no other test has. */
export const freshKey = (): string => `key-${crypto.randomUUID()}`

/** How long something takes, in milliseconds. */
export const millis = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const before = yield* Clock.monotonicTimeNanos
    const value = yield* effect
    return [value, Number((yield* Clock.monotonicTimeNanos) - before) / 1e6] as const
  })

/** Asks until it is so; the caller's time limit ends it otherwise. */
export const until = <E, R>(condition: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.flatMap(condition, (met) => met ? Effect.void : Effect.andThen(Effect.sleep("10 millis"), until(condition)))

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
 * A proxy that freezes the connections of now, while new ones pass: what a firewall does that has forgotten them. What
 * was sent on them arrives when they thaw.
 */
export const freezer = (endpoint: string) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly listener: Net.Server, readonly pairs: Set<ReadonlyArray<Net.Socket>> }>((resume) => {
      const [host = "", port = ""] = endpoint.split(":")
      const pairs = new Set<ReadonlyArray<Net.Socket>>()
      const listener = Net.createServer((client) => {
        const server = Net.connect(Number(port), host)
        const pair = [client, server]
        pairs.add(pair)
        client.pipe(server).pipe(client)
        for (const socket of pair) {
          socket.on("error", () => {})
          socket.on("close", () => {
            pairs.delete(pair)
            for (const other of pair) other.destroy()
          })
        }
      })
      listener.listen(0, "127.0.0.1", () => resume(Effect.succeed({ listener, pairs })))
    }),
    ({ listener, pairs }) =>
      Effect.sync(() => {
        listener.close()
        for (const pair of pairs) for (const socket of pair) socket.destroy()
      })
  ).pipe(Effect.map(({ listener, pairs }) => {
    const address = listener.address()
    const frozen = new Set<Net.Socket>()
    return {
      addr: `127.0.0.1:${typeof address === "object" ? address?.port : 0}`,
      freeze: Effect.sync(() => {
        for (const [client, server] of pairs) {
          if (client === undefined || server === undefined) continue
          client.unpipe(server)
          server.unpipe(client)
          for (const socket of [client, server]) frozen.add(socket.pause())
        }
      }),
      thaw: Effect.sync(() => {
        for (const [client, server] of pairs) {
          if (client !== undefined && server !== undefined && frozen.has(client)) client.pipe(server).pipe(client)
        }
        frozen.clear()
      })
    }
  }))
