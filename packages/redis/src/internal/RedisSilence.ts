/**
 * Notices when a server that was asked says nothing more: it sits behind a dead connection, and a new one may reach it.
 * The driver has a timer for each command for that (`socketTimeout`), which costs as much as the command.
 */
import type { Deadlines } from "./Deadlines.ts"
import { Alarm } from "./Deadlines.ts"
import type { Driver } from "./RedisDriver.ts"

export interface Silence {
  /** A connection was made, and its server has yet to say that it is ready. */
  readonly opened: () => void
  /** Something is sent. */
  readonly asked: () => void
  /** Something was answered, or will not be. */
  readonly heard: () => void
  /** An answer is late. */
  readonly doubt: () => void
}

/** `millis`: the monotonic clock. `longest`: for how long nothing may be said, in ms. */
export const make = (driver: Driver, deadlines: Deadlines, millis: () => number, longest: number): Silence => {
  let unanswered = 0
  /** When something was last heard, or since when something is waited for. */
  let heardAt = 0
  let isWatching = false

  const isWaiting = () => unanswered > 0 || driver.status === "connect"
  const end = new Alarm(() => {
    isWatching = false
    if (!isWaiting()) return
    if (millis() - heardAt < longest) doubt()
    else if ("stream" in driver) driver.stream.destroy(new Error("the server says nothing"))
  })
  const doubt = () => {
    if (isWatching || !isWaiting()) return
    isWatching = true
    end.at = heardAt + longest
    deadlines.add(end)
  }
  return {
    opened: () => {
      heardAt = millis()
      doubt()
    },
    asked: () => {
      if (unanswered++ === 0) heardAt = millis()
    },
    heard: () => {
      unanswered--
      heardAt = millis()
    },
    doubt
  }
}
