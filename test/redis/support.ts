/**
 * A Redis server for tests, a bare client to look at it, and what the conformance suite wants to know of a backend.
 */
import type { LockRequest } from "@dlock/core"
import type { LockTest } from "@dlock/core/testing"
import { RedisLock } from "@dlock/redis"
import { Clock, Context, Duration, Effect, Layer } from "effect"
import { Redis } from "ioredis"
import { proxy } from "../harness/Proxy.ts"
import { redis } from "../harness/RedisServer.ts"
import type { Server } from "../harness/Server.ts"

/** A running server, with a driver of our own to look behind the backend's back. */
export class RedisServer extends Context.Service<RedisServer, { readonly server: Server, readonly bare: Redis }>()(
  "test/redis/RedisServer"
) {
  static readonly layer = Layer.effect(
    RedisServer,
    Effect.gen(function*() {
      const server = yield* redis()
      return { server, bare: yield* connect(server.port) }
    })
  )
}

/** A bare driver, closed with the scope. */
export const connect = (port: number, password?: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const driver = new Redis({ host: "127.0.0.1", port, ...(password !== undefined && { password }) })
      driver.on("error", () => {})
      return driver
    }),
    (driver) => Effect.sync(() => driver.disconnect())
  )

let attempts = 0

/** A request as core makes them. */
export const attempt = (key: string, ttl: Duration.Input = "30 seconds"): LockRequest => ({
  key,
  owner: `test/${++attempts}-${crypto.randomUUID()}`,
  ttl: Duration.fromInputUnsafe(ttl),
  onLost: () => {}
})

/** How long something takes, in milliseconds. */
export const millis = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const before = yield* Clock.monotonicTimeNanos
    const value = yield* effect
    return [value, Number((yield* Clock.monotonicTimeNanos) - before) / 1e6] as const
  })

/** Asks until it is so. */
export const until = (condition: () => Promise<boolean>) =>
  Effect.promise(condition).pipe(
    Effect.flatMap((met) => met ? Effect.void : Effect.andThen(Effect.sleep("10 millis"), Effect.fail("not yet"))),
    Effect.eventually
  )

export const capabilities: LockTest.Capabilities<RedisServer> = {
  clock: "live",
  tenure: "lease",
  ttl: "request",
  minTtl: "1 second",
  deadWaiterDelay: "2 seconds",
  commandTimeout: "1 second",
  fifo: true,
  pushesLoss: false,
  inLine: (key) => Effect.flatMap(RedisServer, ({ bare }) => Effect.promise(() => bare.zcard(`{${key}}:dlock-line`))),
  mortal: Effect.gen(function*() {
    const { server } = yield* RedisServer
    const road = yield* proxy(server)
    const client = yield* RedisLock.make({ addrs: [road.addr], commandTimeout: "1 second" })
    return { client, cut: road.drop("both") }
  }),
  revocable: Effect.gen(function*() {
    const { bare, server } = yield* RedisServer
    const client = yield* RedisLock.make({ addrs: [server.addr] })
    return { client, revoke: (request) => Effect.promise(() => bare.del(request.key)) }
  })
}
