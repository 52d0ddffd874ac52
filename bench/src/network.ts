/**
 * The uncontended pair over a network with half a millisecond of latency each way, the bare driver's and the others' alike,
 * and how many round trips it takes.
 */
import type { Entry, Site } from "./Contender.ts"
import type { Counter } from "./Counts.ts"
import { median } from "./stats.ts"
import { type Effort, measure as measurePairs, type Uncontended } from "./uncontended.ts"
import type { Worker } from "./workers.ts"

export const delayMillis = 0.5

export interface Network {
  /** What the proxy adds to a round trip of the bare driver, of two that are meant to be half a millisecond each. */
  readonly addedMillis: number | undefined
  /** `commands` are round trips per acquire and release, one at a time. */
  readonly pairs: ReadonlyArray<Uncontended>
}

/** The servers as they are seen through the proxy. */
export const distant = async (site: Site, proxy: Worker): Promise<Site> => ({
  ...site,
  addrs: await proxy.ask("proxy", { targets: site.addrs, delayMillis })
})

const pairMillis = async (floor: Entry, site: Site): Promise<number> => {
  const contender = await floor.make(site)
  const keys = Array.from({ length: 200 }, (_, i) => `near-${i}`)
  await contender.sequence(keys)
  const millis = median(await contender.sequence(keys))
  await contender.close()
  return millis
}

export const measure = async (
  entries: ReadonlyArray<Entry>,
  site: Site,
  proxy: Worker,
  effort: Effort
): Promise<Network> => {
  const through = await distant(site, proxy)
  const counter: Counter = {
    take: async () => ({ trips: await proxy.ask("trips", {}) }),
    close: async () => {}
  }
  const floor = entries.find(({ kind }) => kind === "floor")
  const near = floor === undefined ? undefined : await pairMillis(floor, site)
  const far = floor === undefined ? undefined : await pairMillis(floor, through)
  return {
    addedMillis: near === undefined || far === undefined ? undefined : (far - near) / 2,
    pairs: await measurePairs(entries, through, counter, effort)
  }
}
