/**
 * N Redis servers for tests, each behind a proxy, a bare client to look at each, and what the conformance suite wants to
 * know of the backend.
 */
import type { LockTest } from "@dlock/core/testing"
import { Redlock } from "@dlock/redis"
import { Context, Effect, Layer } from "effect"
import type { Redis } from "ioredis"
import { proxy } from "../harness/Proxy.ts"
import { redis } from "../harness/RedisServer.ts"
import type { Server } from "../harness/Server.ts"
import { connect } from "../redis/client.ts"

/** A running server, with a driver of our own to look behind the backend's back. */
export interface Node {
  readonly server: Server
  readonly bare: Redis
}

/** Five of them. */
export class RedisServers extends Context.Service<RedisServers, ReadonlyArray<Node>>()("test/redlock/RedisServers") {
  static readonly layer = Layer.effect(RedisServers, Effect.suspend(() => servers(5)))
}

export const servers = (n: number) =>
  Effect.forEach(
    Array.from({ length: n }),
    () =>
      Effect.gen(function*() {
        const server = yield* redis()
        return { server, bare: yield* connect(server.port) }
      }),
    { concurrency: "unbounded" }
  )

export const addrsOf = (nodes: ReadonlyArray<{ readonly server: Server }>) => nodes.map(({ server }) => server.addr)

/** How many servers have a value under a key. */
export const countOf = (nodes: ReadonlyArray<Node>, key: string, value: string) =>
  Effect.map(
    Effect.forEach(nodes, ({ bare }) => Effect.promise(() => bare.get(key)), { concurrency: "unbounded" }),
    (values) => values.filter((held) => held === value).length
  )

export const capabilities: LockTest.Capabilities<RedisServers> = {
  clock: "live",
  tenure: "lease",
  ttl: "request",
  minTtl: "1 second",
  commandTimeout: "1 second",
  fifo: false,
  pushesLoss: false,
  mortal: Effect.gen(function*() {
    const roads = yield* Effect.forEach(yield* RedisServers, ({ server }) => proxy(server))
    const client = yield* Redlock.make({ nodes: roads.map(({ addr }) => addr), commandTimeout: "1 second" })
    return { client, cut: Effect.forEach(roads, (road) => road.drop("both"), { discard: true }) }
  }),
  revocable: Effect.gen(function*() {
    const nodes = yield* RedisServers
    const client = yield* Redlock.make({ nodes: addrsOf(nodes) })
    return {
      client,
      // A majority that lost it is enough.
      revoke: (request) =>
        Effect.forEach(nodes.slice(0, 3), ({ bare }) => Effect.promise(() => bare.del(request.key)), { discard: true })
    }
  })
}
