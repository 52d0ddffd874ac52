/**
 * Redis: the bare recipe of the manual, the peers, and dlock.
 */
import { make as effect3 } from "@dlock/bench-effect3"
import { RedisLock, Redlock } from "@dlock/redis"
import { Redlock as Sesamecare } from "@sesamecare-oss/redlock"
import { Redis } from "ioredis"
import { createHash, randomUUID } from "node:crypto"
import Redlock5 from "redlock"
import { createLock, IoredisAdapter } from "redlock-universal"
import { type Contender, dlock, type Entry, holdBy, promising, type Site } from "../Contender.ts"

const ttl = 30_000

const deleteIfEqual =
  "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"
const sha1 = createHash("sha1").update(deleteIfEqual).digest("hex")

const clientsOf = ({ addrs }: Site): Array<Redis> =>
  addrs.map((addr) => {
    const [host = "", port] = addr.split(":")
    return new Redis({ host, port: Number(port) })
  })

const closing = (clients: ReadonlyArray<Redis>) => async () => {
  for (const client of clients) client.disconnect()
}

/** SET NX PX, then EVALSHA of delete-if-equal: two round trips, no waiting, no renewal, no fencing. */
const floor = async (site: Site): Promise<Contender> => {
  const clients = clientsOf(site)
  const [client] = clients
  if (client === undefined) throw new Error("no server")
  await client.script("LOAD", deleteIfEqual)
  return promising({
    pair: async (key) => {
      const owner = randomUUID()
      await client.set(key, owner, "PX", ttl, "NX")
      await client.evalsha(sha1, 1, key, owner)
    },
    close: closing(clients)
  })
}

/** What users of pollers set when they want speed. */
const fast = { retryCount: -1, retryDelay: 10, retryJitter: 10 }

const redlock5 = (settings: object) => (site: Site): Contender => {
  const clients = clientsOf(site)
  const redlock = new Redlock5(clients, settings)
  redlock.on("error", () => {})
  return promising({
    pair: async (key) => (await redlock.acquire([key], ttl)).release(),
    run: async (key, work) => {
      const lock = await redlock.acquire([key], ttl)
      await work()
      await lock.release()
    },
    hold: (key, ttl, onLost) => holdBy((work) => redlock.using([key], ttl, work), onLost),
    close: closing(clients)
  })
}

const sesamecare = (settings: object) => (site: Site): Contender => {
  const clients = clientsOf(site)
  const redlock = new Sesamecare(clients, settings)
  redlock.on("error", () => {})
  return promising({
    pair: async (key) => (await redlock.acquire([key], ttl)).release(),
    run: async (key, work) => {
      const lock = await redlock.acquire([key], ttl)
      await work()
      await lock.release()
    },
    hold: (key, ttl, onLost) => holdBy((work) => redlock.using([key], ttl, work), onLost),
    close: closing(clients)
  })
}

type UniversalSettings = Omit<Parameters<typeof createLock>[0], "adapter" | "key">

const universal = (settings: UniversalSettings) => (site: Site): Contender => {
  const clients = clientsOf(site)
  const [client] = clients
  if (client === undefined) throw new Error("no server")
  const adapter = new IoredisAdapter(client)
  const run = async (key: string, work?: () => Promise<void>) => {
    const lock = createLock({ adapter, key, ttl, ...settings })
    const handle = await lock.acquire()
    if (work !== undefined) await work()
    await lock.release(handle)
  }
  return promising({
    pair: run,
    run,
    hold: (key, ttl, onLost) => holdBy((work) => createLock({ adapter, key, ...settings, ttl }).using(work), onLost),
    close: closing(clients)
  })
}

const effect = (settings: { readonly pollMillis?: number | undefined }) => ({ addrs: [addr = ""] }: Site): Contender =>
  promising(effect3(addr, settings))

export const redis: ReadonlyArray<Entry> = [
  { name: "bare ioredis", kind: "floor", make: floor },
  { name: "dlock", kind: "dlock", make: (site) => dlock(RedisLock.layer(site)) },
  { name: "redlock", kind: "peer", make: redlock5({}) },
  { name: "redlock (fast)", kind: "peer", make: redlock5(fast) },
  { name: "sesamecare", kind: "peer", make: sesamecare({}) },
  { name: "sesamecare (fast)", kind: "peer", make: sesamecare(fast) },
  { name: "redlock-universal", kind: "peer", make: universal({}) },
  {
    name: "redlock-universal (fast)",
    kind: "peer",
    make: universal({ performance: "lean", retryDelay: 10, retryAttempts: 100_000 })
  },
  { name: "effect-distributed-lock", kind: "peer", make: effect({}) },
  { name: "effect-distributed-lock (fast)", kind: "peer", make: effect({ pollMillis: 10 }) }
]

/** Holding by `acquire` costs no fiber of its own. */
export const redisAcquire: Entry = {
  name: "dlock (acquire)",
  kind: "dlock",
  make: (site) => dlock(RedisLock.layer(site), "acquire")
}

/** Five independent servers. */
export const redlock: ReadonlyArray<Entry> = [
  { name: "dlock", kind: "dlock", make: ({ addrs }) => dlock(Redlock.layer({ nodes: addrs })) },
  { name: "redlock", kind: "peer", make: redlock5({}) },
  { name: "redlock (fast)", kind: "peer", make: redlock5(fast) },
  { name: "sesamecare", kind: "peer", make: sesamecare({}) },
  { name: "sesamecare (fast)", kind: "peer", make: sesamecare(fast) }
]
