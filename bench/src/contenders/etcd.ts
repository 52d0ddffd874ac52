/**
 * etcd: the bare transactions, the driver's own Lock, and dlock.
 */
import { EtcdLock } from "@dlock/etcd"
import { Etcd3, EtcdLockFailedError } from "etcd3"
import { setTimeout as sleep } from "node:timers/promises"
import { type Contender, dlock, type Entry, type LayerOf, promising, type Site } from "../Contender.ts"

const clientOf = ({ addrs }: Site): Etcd3 => new Etcd3({ hosts: addrs.map((addr) => `http://${addr}`) })

/** Put-if-absent on a lease that is there already, then delete. */
const floor = async (site: Site): Promise<Contender> => {
  const client = clientOf(site)
  const lease = client.lease(600)
  const id = await lease.grant()
  return promising({
    pair: async (key) => {
      await client.if(`floor/${key}`, "Create", "==", 0).then(client.put(`floor/${key}`).value("").lease(id)).commit()
      await client.delete().key(`floor/${key}`)
    },
    close: async () => {
      await lease.revoke()
      client.close()
    }
  })
}

/** The driver's Lock does not wait: the same pause as a poller's, with as much chance in it. */
const own = (pauseMillis: number) => (site: Site): Contender => {
  const client = clientOf(site)
  const take = async (key: string, ttlSeconds: number) => {
    for (;;) {
      const lock = client.lock(`own/${key}`).ttl(ttlSeconds)
      try {
        return await lock.acquire()
      } catch (error) {
        if (!(error instanceof EtcdLockFailedError)) throw error
        await lock.release().catch(() => {})
        await sleep(pauseMillis * (0.5 + Math.random()))
      }
    }
  }
  const run = async (key: string, work?: () => Promise<void>) => {
    const lock = await take(key, 30)
    if (work !== undefined) await work()
    await lock.release()
  }
  return promising({
    pair: run,
    run,
    hold: async (key, ttl) => {
      const lock = await take(key, ttl / 1000)
      return () => lock.release()
    },
    close: async () => client.close()
  })
}

export const etcdLayer: LayerOf = ({ addrs }) => EtcdLock.layer({ endpoints: addrs })

export const etcd: ReadonlyArray<Entry> = [
  { name: "bare etcd3", kind: "floor", make: floor },
  { name: "dlock", kind: "dlock", make: (site) => dlock(etcdLayer(site)) },
  { name: "etcd3 Lock", kind: "peer", make: own(100) },
  { name: "etcd3 Lock (fast)", kind: "peer", make: own(10) }
]
