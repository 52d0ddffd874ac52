/**
 * live-mutex: a lock server of its own, in memory, in Node. It bounds what is possible on a machine.
 */
import { Broker, Client } from "live-mutex"
import { type Entry, promising } from "../Contender.ts"

const host = "127.0.0.1"

/** The server, which its users run as a process of its own. */
export const startBroker = async (port: number): Promise<void> => {
  const broker = new Broker({ host, port })
  broker.emitter.on("warning", () => {})
  await broker.ensure()
}

export const liveMutex: Entry = {
  name: "live-mutex",
  kind: "peer",
  make: async ({ broker }) => {
    const client = new Client({ host, port: broker, lockRequestTimeout: 60_000, ttl: 60_000 })
    client.emitter.on("warning", () => {})
    await client.ensure()
    const run = async (key: string, work?: () => Promise<void>) => {
      const { id } = await client.acquire(key)
      if (work !== undefined) await work()
      await client.release(key, { id })
    }
    return promising({ pair: run, run, close: async () => client.close() })
  }
}
