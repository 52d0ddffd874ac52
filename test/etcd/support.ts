/**
 * An etcd server for tests, a bare client to look behind the backend's back, and what the conformance suite wants to
 * know of the backend.
 */
import { LockBackend } from "@dlock/core"
import type { LockTest } from "@dlock/core/testing"
import { EtcdLock } from "@dlock/etcd"
import { Context, Effect, Layer } from "effect"
import type { Duration, Scope } from "effect"
import { Etcd3 } from "etcd3"
import { etcd, etcdCluster } from "../harness/EtcdServer.ts"
import type { Options } from "../harness/EtcdServer.ts"
import { proxy } from "../harness/Proxy.ts"
import { turnout } from "./roads.ts"

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

  static readonly layerCluster = (options: Options = {}) =>
    Layer.effect(
      Etcd,
      Effect.gen(function*() {
        const { endpoints } = yield* etcdCluster(options)
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

/** The lease of each that holds or waits, in the order in which they came. */
export const leasesOf = (bare: Etcd3, key: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.promise(async () => {
    const { kvs } = await bare.getAll().prefix(`${escaped(key)}/`).sort("Create", "Ascend").exec()
    return kvs.map(({ lease }) => lease)
  })

export const revoke = (bare: Etcd3, lease: string | undefined): Effect.Effect<void> =>
  Effect.asVoid(Effect.promise(() => bare.leaseClient.leaseRevoke({ ID: lease ?? "0" })))

/** The alarm that a store without space raises: from then on it refuses what puts keys or grants leases. */
export const setFull = (bare: Etcd3, isFull: boolean): Effect.Effect<void> =>
  Effect.asVoid(
    Effect.promise(() =>
      bare.maintenance.alarm({ action: isFull ? "Activate" : "Deactivate", memberID: "0", alarm: "Nospace" })
    )
  )

/** Deletes everything in the line of a lock. */
export const clear = (bare: Etcd3, key: string): Effect.Effect<void> =>
  Effect.asVoid(Effect.promise(() => bare.delete().prefix(`${escaped(key)}/`).exec()))

/** The companion names of a key on the server. */
const companions = (key: string): ReadonlyArray<string> => [`${key}/`, `${key}%void`, `${escaped(key)}%void/x`]

/** The backend of the suite, whose server is there, however busy the machine is. */
export const backend = Layer.effect(
  LockBackend,
  Effect.flatMap(Etcd, ({ endpoints }) => EtcdLock.make({ endpoints, commandTimeout: "30 seconds" }))
)

export const capabilities = (commandTimeout: Duration.Input): LockTest.Capabilities<Etcd> => {
  const over = (endpoint: string) => EtcdLock.make({ endpoints: [endpoint], commandTimeout })
  return {
    clock: "live",
    freedBy: "session",
    ttl: "request",
    minTtl: "3 seconds",
    granularity: "1 second",
    commandTimeout,
    fifo: true,
    pushesLoss: true,
    tellsWanted: true,
    renewsTokens: true,
    resends: true,
    // The store does not keep the token.
    inspects: { owner: true, token: false, remaining: true, waiting: "owners" },
    revokes: true,
    companions,
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
    }),
    late: Effect.gen(function*() {
      const { endpoints } = yield* Etcd
      const road = yield* roadTo(endpoints[0] ?? "")
      return { client: yield* over(road.addr), holdBack: road.freeze, breakOff: road.strand, deliver: road.pass }
    }),
    counted: Effect.gen(function*() {
      const { endpoints } = yield* Etcd
      const road = yield* turnout(endpoints[0] ?? "")
      return { client: yield* over(road.addr), requests: Effect.sync(() => road.sent) }
    }),
    swapped: Effect.gen(function*() {
      const { endpoints } = yield* Etcd
      const other = yield* etcd({})
      const road = yield* turnout(endpoints[0] ?? "")
      const client = yield* over(road.addr)
      return { client, begin: road.lead(other.addr), end: road.lead(endpoints[0] ?? "") }
    }),
    full: Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const client = yield* EtcdLock.make({ endpoints, commandTimeout })
      return { client, begin: setFull(bare, true), end: setFull(bare, false) }
    })
  }
}

/** A cluster of its own, whose client loses the majority: a `busy` client of the suite. */
export const withoutQuorum = (commandTimeout: Duration.Input): NonNullable<LockTest.Capabilities<Etcd>["busy"]> =>
  Effect.gen(function*() {
    const { endpoints, nodes } = yield* etcdCluster()
    const client = yield* EtcdLock.make({ endpoints: endpoints.slice(0, 1), commandTimeout })
    const others = nodes.slice(1)
    return {
      client,
      // Until the one that is left has noticed.
      begin: Effect.andThen(Effect.forEach(others, ({ pause }) => pause), Effect.sleep("2 seconds")),
      end: Effect.forEach(others, ({ resume }) => resume, { discard: true })
    }
  })

/** A proxy in front of an endpoint. */
export const roadTo = (endpoint: string) => {
  const [host = "", port = ""] = endpoint.split(":")
  return proxy({ host, port: Number(port) })
}
