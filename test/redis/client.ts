/**
 * A bare client to look at servers behind a backend's back, and requests as core makes them.
 */
import type { LockRequest } from "@dlock/core"
import { Duration, Effect } from "effect"
import { Cluster, Redis } from "ioredis"
import type { Server } from "../harness/Server.ts"

export { millis } from "../requests.ts"

/** A driver that closes with the scope. */
export const closing = <D extends Redis | Cluster>(open: () => D) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const driver = open()
      driver.on("error", () => {})
      return driver
    }),
    (driver) => Effect.sync(() => driver.disconnect())
  )

/** A bare driver, closed with the scope. */
export const connect = (port: number, password?: string) =>
  closing(() => new Redis({ host: "127.0.0.1", port, ...(password !== undefined && { password }) }))

/** A bare driver of a cluster, closed with the scope. */
export const connectCluster = (nodes: ReadonlyArray<Server>) =>
  closing(() => new Cluster(nodes.map(({ host, port }) => ({ host, port }))))

let attempts = 0

/** A request as core makes them. */
export const attempt = (key: string, ttl: Duration.Input = "30 seconds"): LockRequest => ({
  key,
  owner: `test/${++attempts}-${crypto.randomUUID()}`,
  ttl: Duration.fromInputUnsafe(ttl),
  onLost: () => {}
})

/** Asks until it is so. */
export const until = (condition: () => Promise<boolean>) =>
  Effect.promise(condition).pipe(
    Effect.flatMap((met) => met ? Effect.void : Effect.andThen(Effect.sleep("10 millis"), Effect.fail("not yet"))),
    Effect.eventually
  )
