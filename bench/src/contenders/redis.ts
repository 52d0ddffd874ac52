/**
 * Redis: the bare recipe of the manual, the peers, and dlock.
 */
import { make as effect3 } from "@dlock/bench-effect3"
import { RedisLock, Redlock } from "@dlock/redis"
import { Redlock as Sesamecare } from "@sesamecare-oss/redlock"
import { Verrou } from "@verrou/core"
import { redisStore } from "@verrou/core/drivers/redis"
import { Redis } from "ioredis"
import { createHash, randomUUID } from "node:crypto"
import { Mutex, RedlockMutex, Semaphore } from "redis-semaphore"
import Redlock5 from "redlock"
import { createLock, IoredisAdapter } from "redlock-universal"
import { type Contender, dlock, type Entry, holdBy, type LayerOf, promising, type Site } from "../Contender.ts"

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

const withoutLimit = { acquireTimeout: 600_000, acquireAttemptsLimit: Number.POSITIVE_INFINITY }

/** It asks every 10 ms by default, which is what others call fast. */
const redisSemaphore = (site: Site): Contender => {
  const clients = clientsOf(site)
  const [client] = clients
  if (client === undefined) throw new Error("no server")
  const mutexOf = (key: string, lockTimeout: number, onLockLost = () => {}) => {
    const options = { ...withoutLimit, lockTimeout, onLockLost }
    return clients.length === 1 ? new Mutex(client, key, options) : new RedlockMutex(clients, key, options)
  }
  const run = async (key: string, work?: () => Promise<void>) => {
    const mutex = mutexOf(key, ttl)
    await mutex.acquire()
    if (work !== undefined) await work()
    await mutex.release()
  }
  return promising({
    pair: run,
    run,
    permit: async (key, limit, work) => {
      const semaphore = new Semaphore(client, key, limit, { ...withoutLimit, lockTimeout: ttl })
      await semaphore.acquire()
      await work()
      await semaphore.release()
    },
    hold: async (key, ttl, onLost) => {
      const mutex = mutexOf(key, ttl, onLost)
      await mutex.acquire()
      return () => mutex.release()
    },
    close: closing(clients)
  })
}

/** It does not renew by itself. */
const verrou = (settings: { readonly delay?: number }) => (site: Site): Contender => {
  const clients = clientsOf(site)
  const [connection] = clients
  if (connection === undefined) throw new Error("no server")
  // Its types are of ioredis 5, whose commands are the same.
  const driver = redisStore({ connection } as never)
  const locks = new Verrou({ default: "redis", stores: { redis: { driver } } })
  const run = async (key: string, work?: () => Promise<void>) => {
    const lock = locks.createLock(key, ttl)
    if (!await lock.acquire({ retry: settings })) throw new Error("verrou gave up")
    if (work !== undefined) await work()
    await lock.release()
  }
  return promising({ pair: run, run, close: closing(clients) })
}

const effect = (settings: { readonly pollMillis?: number | undefined }) => ({ addrs: [addr = ""] }: Site): Contender =>
  promising(effect3(addr, settings))

export const redisLayer: LayerOf = ({ addrs }) => RedisLock.layer({ addrs })

export const redlockLayer: LayerOf = ({ addrs }) => Redlock.layer({ nodes: addrs })

export const redis: ReadonlyArray<Entry> = [
  { name: "bare ioredis", kind: "floor", make: floor },
  { name: "dlock", kind: "dlock", make: (site) => dlock(redisLayer(site)) },
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
  { name: "redis-semaphore", kind: "peer", make: redisSemaphore },
  { name: "verrou", kind: "peer", make: verrou({}) },
  { name: "verrou (fast)", kind: "peer", make: verrou({ delay: 10 }) },
  { name: "effect-distributed-lock", kind: "peer", make: effect({}) },
  { name: "effect-distributed-lock (fast)", kind: "peer", make: effect({ pollMillis: 10 }) }
]

/** Five independent servers. */
export const redlock: ReadonlyArray<Entry> = [
  { name: "dlock", kind: "dlock", make: (site) => dlock(redlockLayer(site)) },
  { name: "redlock", kind: "peer", make: redlock5({}) },
  { name: "redlock (fast)", kind: "peer", make: redlock5(fast) },
  { name: "sesamecare", kind: "peer", make: sesamecare({}) },
  { name: "sesamecare (fast)", kind: "peer", make: sesamecare(fast) },
  { name: "redis-semaphore", kind: "peer", make: redisSemaphore }
]
