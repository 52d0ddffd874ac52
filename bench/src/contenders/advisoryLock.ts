/**
 * advisory-lock: `pg_advisory_lock` in a session of its own for each lock. It has no time limit, no renewal and no token.
 * (graphile-worker and pg-boss lock rows of their own job queues, and have no lock for others to take.)
 */
import advisoryLock from "advisory-lock"
import { type Contender, type Entry, promising, type Site } from "../Contender.ts"

const make = ({ addrs: [addr = ""] }: Site): Contender => {
  const mutex = advisoryLock.default(`postgres://app:secret@${addr}/postgres`)
  return promising({
    pair: async (key) => {
      const unlock = await mutex(key).lock()
      await unlock()
    },
    run: async (key, work) => {
      await mutex(key).withLock(work)
    },
    close: async () => {}
  })
}

export const advisory: Entry = { name: "advisory-lock", kind: "peer", make }
