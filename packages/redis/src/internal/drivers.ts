/**
 * How ioredis is set up.
 *
 * It is told to keep nothing: no queue while it is not connected, nothing sent again, no connection opened again. Whether
 * a request is repeated, for how long it is waited for, and when to connect again, with which password, is decided by us
 * (`calls`, `client`). A cluster client does follow redirections by itself, and asks again while a slot has no master;
 * what it sends after we gave up is void (`attempts`).
 */
import type { Options, Secret, Tls } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { ClusterOptions, RedisOptions } from "ioredis"
import { Cluster, Redis } from "ioredis"
import type { Login, Settings } from "./options.ts"

/** A driver of either kind. */
export type Driver = Redis | Cluster

/** Options of a driver that change from one connection to the next: passwords and certificates. */
export type Access = Pick<RedisOptions, "password" | "tls" | "sentinelPassword" | "sentinelTLS">

const secretOf = (name: string, secret: Secret.Secret | undefined): Effect.Effect<string | undefined, string> =>
  secret === undefined ? Effect.undefined : Effect.mapBoth(secret.get, {
    onFailure: (problem) => `${name}: ${problem}`,
    onSuccess: Redacted.value
  })

const materialOf = (name: string, tls: Tls.Tls | undefined): Effect.Effect<Tls.Material | undefined, string> =>
  tls === undefined ? Effect.undefined : Effect.mapBoth(tls.get, {
    onFailure: (problem) => `${name}.${problem}`,
    onSuccess: Redacted.value
  })

/** Reads the passwords and certificates of now. Fails with a sentence. */
export const access = Effect.fnUntraced(function*(
  settings: Login & Partial<Pick<Settings, "sentinelPassword" | "sentinelTls">>
): Effect.fn.Return<Access, string> {
  const password = yield* secretOf("password", settings.password)
  const tls = yield* materialOf("tls", settings.tls)
  const sentinelPassword = yield* secretOf("sentinelPassword", settings.sentinelPassword)
  const sentinelTLS = yield* materialOf("sentinelTls", settings.sentinelTls)
  return {
    ...(password !== undefined && { password }),
    ...(tls !== undefined && { tls }),
    ...(sentinelPassword !== undefined && { sentinelPassword }),
    ...(sentinelTLS !== undefined && { sentinelTLS })
  }
})

/** The pause before the connection is opened again, in milliseconds. */
export const pauseBefore = (attempt: number): number => Math.min(25 * 2 ** Math.min(attempt, 6), 1000)

/** What an answer may be late by, in milliseconds. */
export const grace = 100

/** Less of silence is no reason to give up a connection, however short the time limit of a request. */
const shortestSilence = 1000

/** For how long a server that was asked, with this time limit, may say nothing; in milliseconds. */
export const longestSilence = (limit: number): number => Math.max(limit, shortestSilence) + grace

/** Settings of every connection; silence is noticed by us. `limit` is how long a server may take to answer. */
const basics = (limit: number) => ({
  connectTimeout: limit,
  replyMapping: "legacy",
  lazyConnect: true,
  enableReadyCheck: false,
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  autoResubscribe: false,
  retryStrategy: null
} as const satisfies RedisOptions)

/** Settings of connections with few commands, and of those that a cluster opens: the driver notices silence. */
const quiet = (limit: number) => ({ ...basics(limit), socketTimeout: longestSilence(limit) }) satisfies RedisOptions

const userOf = ({ db, username }: Pick<Login, "db" | "username">): RedisOptions => ({
  db,
  ...(username !== undefined && { username })
})

/** One server. */
export const single = (address: Options.Address, login: Login, limit: number): Redis =>
  new Redis({ host: address.host, port: address.port, ...userOf(login), ...basics(limit) })

/** The driver asks its addresses one after the other: one that is away must leave time for the others. */
const shareOf = ({ addrs }: Settings, limit: number): number =>
  Math.max(limit / (addrs.length + 1), Math.min(limit, shortestSilence))

/** The server that is the master of its replicas at the time. */
export const sentinel = (settings: Settings, limit: number): Redis => {
  const { addrs, masterName = "", sentinelUsername, ...login } = settings
  const share = shareOf(settings, limit)
  return new Redis({
    name: masterName,
    sentinels: addrs.map(({ host, port }) => ({ host, port })),
    ...(sentinelUsername !== undefined && { sentinelUsername }),
    enableTLSForSentinelMode: login.tls !== undefined,
    sentinelCommandTimeout: share,
    sentinelRetryStrategy: () => null,
    ...userOf(login),
    ...basics(limit),
    connectTimeout: share
  })
}

/** The nodes of a cluster; some of them are enough to find the others. */
export const cluster = (settings: Settings, access: Access, limit: number): Cluster =>
  new Cluster(
    settings.addrs.map(({ host, port }) => ({ host, port })),
    {
      lazyConnect: true,
      enableOfflineQueue: false,
      enableReadyCheck: false,
      clusterRetryStrategy: () => null,
      // Tells us at once, instead of asking again by itself until our time limit.
      retryDelayOnClusterDown: 0,
      slotsRefreshTimeout: shareOf(settings, limit),
      slotsRefreshInterval: 10_000,
      // A certificate is for the name, not for what it stands for.
      ...(settings.tls !== undefined && { dnsLookup: (address, callback) => callback(null, address) }),
      redisOptions: {
        ...userOf(settings),
        ...access,
        ...quiet(limit),
        connectTimeout: shareOf(settings, limit),
        // The node is a replica now: connecting again may find the master.
        reconnectOnError: (error) => error.message.includes("READONLY")
      }
    } satisfies ClusterOptions
  )

/** Another connection like that of a driver, for messages. It is not opened again when it breaks. */
export const forMessages = (driver: Redis, limit: number): Redis => driver.duplicate(quiet(limit))

/** A connection to each sentinel that a driver knows of, to hear of a new master. */
export const toSentinels = ({ options }: Redis, limit: number): ReadonlyArray<Redis> =>
  (options.sentinels ?? []).map(({ host = "localhost", port = 26379 }) =>
    new Redis({
      host,
      port,
      ...(options.sentinelUsername != null && { username: options.sentinelUsername }),
      ...(options.sentinelPassword != null && { password: options.sentinelPassword }),
      ...(options.sentinelTLS !== undefined && { tls: options.sentinelTLS }),
      ...quiet(limit)
    })
  )
