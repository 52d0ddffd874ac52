/**
 * What is sent in one turn of the event loop goes out in one write: of all that a command costs the client, the system
 * call is the dearest.
 */
import type { Writable } from "node:stream"
import type { Driver } from "./RedisDriver.ts"

/** Called before each command; holds back what the connection writes until the callbacks of this turn are done. */
export const gather = (driver: Driver): () => void => {
  let corked: Writable | undefined
  const release = () => {
    corked?.uncork()
    corked = undefined
  }
  return () => {
    // A cluster has a connection for each node, chosen by the driver.
    if (!("stream" in driver) || driver.stream === corked) return
    release()
    corked = driver.stream
    corked.cork()
    process.nextTick(release)
  }
}
