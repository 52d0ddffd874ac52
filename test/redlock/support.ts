/**
 * N Redis servers for tests, each behind a proxy, a bare client to look at each, and what the conformance suite wants to
 * know of the backend.
 */
import type { LockTest } from "@dlock/core/testing"
import { Redlock } from "@dlock/redis"
import { Context, Effect, Layer } from "effect"
import type { Redis } from "ioredis"
import { proxy } from "../harness/Proxy.ts"
import type { Kind } from "../harness/RedisServer.ts"
import { redis } from "../harness/RedisServer.ts"
import type { Server } from "../harness/Server.ts"
import { connect } from "../redis/client.ts"
import { relay } from "../redis/relay.ts"

/** A running server, with a driver of our own to look behind the backend's back. */
export interface Node {
  readonly server: Server
  readonly bare: Redis
}

/** Five of them, the first ones of these kinds. */
export class RedisServers extends Context.Service<RedisServers, ReadonlyArray<Node>>()("test/redlock/RedisServers") {
  static readonly layer = (kinds: ReadonlyArray<Kind> = []) =>
    Layer.effect(RedisServers, Effect.suspend(() => servers(5, kinds)))
}

export const servers = (n: number, kinds: ReadonlyArray<Kind> = []) =>
  Effect.forEach(
    Array.from({ length: n }, (_, i) => kinds[i]),
    (kind) =>
      Effect.gen(function*() {
        const server = yield* redis(kind && { kind })
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

const commandTimeout = "2 seconds"

export const capabilities: LockTest.Capabilities<RedisServers> = {
  clock: "live",
  freedBy: "ttl",
  ttl: "request",
  // Five servers, and every answer within a tenth of it.
  minTtl: "2 seconds",
  commandTimeout,
  fifo: false,
  pushesLoss: false,
  reserves: true,
  renewsTokens: true,
  // It tells how many processes listen for a release, and a process may listen for several requests.
  inspects: { owner: true, token: true, remaining: true, waiting: "none" },
  revokes: true,
  refuses: (key) => key.includes(":dlock-"),
  mortal: Effect.gen(function*() {
    const roads = yield* Effect.forEach(yield* RedisServers, ({ server }) => proxy(server))
    const client = yield* Redlock.make({ nodes: roads.map(({ addr }) => addr), commandTimeout })
    return { client, cut: Effect.forEach(roads, (road) => road.drop("both"), { discard: true }) }
  }),
  swapped: Effect.gen(function*() {
    const nodes = yield* RedisServers
    const roads = yield* Effect.forEach(nodes, ({ server }) => relay(server))
    const client = yield* Redlock.make({ nodes: roads.map(({ addr }) => addr), commandTimeout })
    const others = yield* servers(3)
    const lead = (targets: ReadonlyArray<Node>) =>
      Effect.forEach(targets, ({ server }, i) => roads[i]?.to(server) ?? Effect.void, { discard: true })
    return { client, begin: lead(others), end: lead(nodes.slice(0, others.length)) }
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
