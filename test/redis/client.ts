/**
 * A bare client to look at servers behind a backend's back.
 */
import { Effect } from "effect"
import { Cluster, Redis } from "ioredis"
import type { Server } from "../harness/Server.ts"

export { least, millis, newRequest, persist, until } from "../requests.ts"

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
