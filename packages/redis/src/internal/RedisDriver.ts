/**
 * How ioredis is set up.
 *
 * It is told to keep nothing: no queue while it is not connected, nothing sent again after a reconnect. Whether a request
 * is repeated, and for how long somebody waits, is decided by us (`RedisCall`), for the driver sends a command again even
 * after its own `commandTimeout` has rejected it. A cluster client does follow redirections by itself, and asks again
 * while a slot has no master; what it sends after we gave up is void (`RedisAttempts`).
 */
import type { ClusterOptions, RedisOptions } from "ioredis"
import { Cluster, Redis } from "ioredis"
import type { ConnectionOptions } from "node:tls"
import type { Address } from "./RedisAddress.ts"
import { slotOf } from "./RedisKeys.ts"

/** A driver of either kind. */
export type Driver = Redis | Cluster

/** What all servers of a set-up have in common. */
export interface Login {
  readonly username?: string | undefined
  readonly password?: string | undefined
  readonly db?: number | undefined
  readonly tls?: ConnectionOptions | undefined
}

/** Sentinels that watch a master. */
export interface Watch {
  readonly masterName: string
  readonly sentinels: ReadonlyArray<Address>
  readonly username?: string | undefined
  readonly password?: string | undefined
}

const longestPause = 1000

const pauseBefore = (attempt: number): number => Math.min(25 * 2 ** Math.min(attempt, 6), longestPause)

/** For how long a server that was asked may say nothing, in milliseconds. */
export const longestSilence = (limitMillis: number): number => limitMillis + 100

/** Settings of every connection; silence is noticed by `RedisSilence`. `limitMillis` is how long a server may take to answer. */
const basics = (limitMillis: number) => ({
  connectTimeout: limitMillis,
  replyMapping: "legacy",
  lazyConnect: true,
  autoResendUnfulfilledCommands: false,
  autoResubscribe: false,
  // What is under way on a connection that breaks fails at once.
  maxRetriesPerRequest: 0,
  // The address leads to a replica now: connecting again may find the master.
  reconnectOnError: (error: Error) => error.message.includes("READONLY")
} as const satisfies RedisOptions)

const loginOf = ({ db, password, tls, username }: Login): RedisOptions => ({
  ...(username !== undefined && { username }),
  ...(password !== undefined && { password }),
  ...(db !== undefined && { db }),
  ...(tls !== undefined && { tls })
})

/** Settings of connections with few commands, and of those that a cluster opens: the driver notices silence. */
const settings = (limitMillis: number) =>
  ({ ...basics(limitMillis), socketTimeout: longestSilence(limitMillis) }) satisfies RedisOptions

/** One server. */
export const single = (address: Address, login: Login, limitMillis: number): Redis =>
  new Redis({
    ...address,
    ...loginOf(login),
    ...basics(limitMillis),
    enableOfflineQueue: false,
    retryStrategy: pauseBefore
  })

/** The server that is the master of its replicas at the time. */
export const sentinel = (watch: Watch, login: Login, limitMillis: number): Redis =>
  new Redis({
    name: watch.masterName,
    sentinels: watch.sentinels.map((address) => ({ ...address })),
    ...(watch.username !== undefined && { sentinelUsername: watch.username }),
    ...(watch.password !== undefined && { sentinelPassword: watch.password }),
    ...(login.tls !== undefined && { sentinelTLS: login.tls, enableTLSForSentinelMode: true }),
    sentinelCommandTimeout: limitMillis,
    sentinelRetryStrategy: pauseBefore,
    ...loginOf(login),
    ...basics(limitMillis),
    enableOfflineQueue: false,
    retryStrategy: pauseBefore
  })

/** A connection to each sentinel, to hear of a new master. They are opened again when they break. */
export const toSentinels = (watch: Watch, login: Login, limitMillis: number): ReadonlyArray<Redis> =>
  watch.sentinels.map((address) =>
    new Redis({
      ...address,
      ...loginOf({ username: watch.username, password: watch.password, tls: login.tls }),
      ...settings(limitMillis),
      enableReadyCheck: false,
      enableOfflineQueue: false,
      retryStrategy: pauseBefore
    })
  )

/** The nodes of a cluster; some of them are enough to find the others. */
export const cluster = (nodes: ReadonlyArray<Address>, login: Login, limitMillis: number): Driver =>
  new Cluster(
    nodes.map((address) => ({ ...address })),
    {
      lazyConnect: true,
      enableOfflineQueue: false,
      clusterRetryStrategy: pauseBefore,
      slotsRefreshTimeout: limitMillis,
      slotsRefreshInterval: 10_000,
      // A certificate is for the name, not for what it stands for.
      ...(login.tls !== undefined && { dnsLookup: (address, callback) => callback(null, address) }),
      redisOptions: { ...loginOf(login), ...settings(limitMillis) }
    } satisfies ClusterOptions
  )

/**
 * A connection for messages beside a driver, which is not opened again when it breaks. In a cluster a message reaches
 * every node, so any of them will do: another one at each `turn`. `undefined`: no node is known.
 */
export const forMessages = (driver: Driver, turn: number, limitMillis: number): Redis | undefined => {
  const nodes = "nodes" in driver ? driver.nodes() : [driver]
  return nodes[turn % nodes.length]?.duplicate({
    ...settings(limitMillis),
    enableOfflineQueue: false,
    retryStrategy: null
  })
}

/** The server that has a key now, with a name of its own, and how to make another driver for it. */
export const masterOf = (
  driver: Driver,
  key: string
): { readonly name: string, readonly open: (limitMillis: number) => Redis } | undefined => {
  const name = "slots" in driver ? driver.slots[slotOf(key)]?.[0] : ""
  const node = "slots" in driver
    ? driver.nodes("master").find(({ options }) => `${options.host}:${options.port}` === name)
    : driver
  if (name === undefined || node === undefined) return undefined
  const open = (limitMillis: number) =>
    node.duplicate({ ...settings(limitMillis), enableOfflineQueue: false, retryStrategy: pauseBefore })
  return { name, open }
}
